"""The commands for mirrors, as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from everturn.journal.reading import RunRef
from everturn.log.format import encode_part
from everturn.log.names import Span
from everturn.log.objects import run
from everturn.log.stores import admit, connect
from everturn.mirrors.sqlite import SqliteMirror, folder_of
from everturn.settings import Settings
from mirrors.ground import a_run, lines_of_events, rows


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(store=f"file://{tmp_path}/store", state=tmp_path / "state")
    objects = connect(settings.store_url(), settings)
    run(admit(objects, "task:t", settings.store_url()))
    for number in (1, 2):
        ref = RunRef("task:t", f"run-{number}")
        lines = lines_of_events(a_run(ref.run_id, epoch=number))
        _, data = encode_part(1, lines, epoch=1, writer="w", write_id=ref.run_id)
        run(objects.create(f"{ref.folder}/{Span(1, 1).file_name}", data))
    return settings


def everturn(
    settings: Settings, *arguments: str, embedder: str = "everturn.testing:word_vectors"
) -> subprocess.CompletedProcess[str]:
    environment = {
        "EVERTURN_EMBEDDER": embedder,
        "PATH": os.environ["PATH"],
        "HOME": str(settings.state),
        "EVERTURN_STORE": str(settings.store),
        "EVERTURN_STATE": str(settings.state),
        "COLUMNS": "100",
    }
    settings.state.mkdir(exist_ok=True)
    command = [str(Path(sys.executable).with_name("everturn")), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=settings.state, check=False, timeout=60
    )


def records(settings: Settings, *arguments: str) -> list[dict[str, Any]]:
    done = everturn(settings, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_mirror_is_listed_rebuilt_and_listed_again(settings: Settings) -> None:
    (before,) = records(settings, "mirrors", "list")
    assert (before["mirror"], before["state"]) == ("sqlite", "not built")
    (rebuilt,) = records(settings, "mirrors", "rebuild", "--only", "sqlite")
    assert (rebuilt["runs"], rebuilt["events"], rebuilt["unreadable"]) == (2, 24, 0)
    assert rebuilt["read_bytes"] > 0
    (after,) = records(settings, "mirrors", "list")
    assert (after["state"], after["runs"], after["events"], after["runs_behind"]) == ("up to date", 2, 24, 0)
    assert after["path"] == before["path"] == rebuilt["path"]
    mirror = SqliteMirror(folder_of(settings), settings.store_url())
    assert rows(mirror, "SELECT count(*) FROM turns") == [(2,)]


@pytest.mark.slow
def test_people_are_told_in_a_table(settings: Settings) -> None:
    done = everturn(settings, "mirrors", "rebuild")
    assert done.returncode == 0
    assert "sqlite: 2 runs, 24 events in" in done.stdout
    done = everturn(settings, "mirrors", "list")
    assert "up to date" in done.stdout
    assert "sqlite.db" in done.stdout


@pytest.mark.slow
def test_a_mirror_that_is_no_database_is_said_to_be_damaged(settings: Settings) -> None:
    folder = folder_of(settings)
    folder.mkdir(parents=True)
    (folder / "sqlite.db").write_text("to be done")
    (listed,) = records(settings, "mirrors", "list", "--offline")
    assert listed["state"] == "damaged"


@pytest.mark.slow
def test_a_mirror_that_there_is_not_is_refused(settings: Settings) -> None:
    done = everturn(settings, "mirrors", "rebuild", "--only", "stone")
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no mirror called stone (")


@pytest.mark.slow
def test_a_store_that_is_not_there_is_refused(settings: Settings, tmp_path: Path) -> None:
    done = everturn(settings, "mirrors", "rebuild", "--store", f"file://{tmp_path}/nothing")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")


@pytest.mark.slow
def test_the_mirror_for_search_by_meaning_is_there_once_it_was_asked_for(settings: Settings) -> None:
    refused = everturn(settings, "mirrors", "rebuild", "--only", "chroma", embedder="no.such:function")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: the embedding function no.such:function cannot be loaded")
    assert [each["mirror"] for each in records(settings, "mirrors", "list")] == ["sqlite"]
    (rebuilt,) = records(settings, "mirrors", "rebuild", "--only", "chroma")
    assert (rebuilt["mirror"], rebuilt["runs"], rebuilt["events"]) == ("chroma", 2, 24)
    _, listed = records(settings, "mirrors", "list")
    assert (listed["mirror"], listed["state"], listed["runs"], listed["events"]) == ("chroma", "up to date", 2, 24)
    assert [each["mirror"] for each in records(settings, "mirrors", "rebuild")] == ["sqlite", "chroma"]
