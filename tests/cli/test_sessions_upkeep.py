"""`everturn sessions list`, `compact`, `delete`, `expire` and `hold`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from claude_agent_sdk import SessionKey

from everturn import Invalid, Settings, TranscriptStore
from everturn.cli.output import short_ids
from everturn.cli.times import milliseconds

SESSION = "7df19cb2-f002-4f12-a0f4-5b4be6b08923"
OTHER = "8e000000-f002-4f12-a0f4-5b4be6b08923"
DAY_S = 86_400

Everturn = Callable[..., Any]


@pytest.fixture
def everturn(everturn_here: Everturn) -> Everturn:
    return everturn_here


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store with two sessions in two scopes, the second of them 100 days old."""
    url = (tmp_path / "store").as_uri()
    settings = Settings.load(compact_after_parts=0)

    async def main() -> None:
        for scope, session_id in (("task-1", SESSION), ("task-2", OTHER)):
            key: SessionKey = {"project_key": "-home-a", "session_id": session_id}
            async with TranscriptStore.open(url, scope=scope, settings=settings) as store:
                for number in range(5):
                    line: Any = {"type": "user", "uuid": f"u-{number}", "customTitle": f"About {scope}"}
                    await store.append(key, [line])

    anyio.run(main)
    make_older(tmp_path / "store", "task-2", 100)
    return url


def make_older(store: Path, scope: str, days: float) -> None:
    """Let everything of a scope have been written so many days ago."""
    for path in store.rglob("*"):
        if path.is_file() and scope in path.parts:
            then = time.time() - days * DAY_S
            os.utime(path, (then, then))


def rows(result: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def listed(everturn: Everturn, url: str) -> set[str]:
    return {row["session_id"] for row in rows(everturn("sessions", "list", "--store", url, "--json"))}


def test_list_shows_sessions_of_all_scopes_the_newest_first(everturn: Everturn, url: str) -> None:
    found = rows(everturn("sessions", "list", "--store", url, "--json"))
    assert [(row["session_id"], row["scope"], row["title"]) for row in found] == [
        (SESSION, "task-1", "About task-1"),
        (OTHER, "task-2", "About task-2"),
    ]
    text = everturn("sessions", "list", "--store", url, "--scope", "task-2").stdout
    assert OTHER[:8] in text
    assert "About task-2" in text
    assert SESSION[:8] not in text


def test_a_store_that_is_not_there_is_refused_and_not_made(everturn: Everturn, tmp_path: Path) -> None:
    result = everturn("sessions", "list", "--store", (tmp_path / "none").as_uri())
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "there are no transcripts" in result.stderr


def test_compact_merges_and_later_frees(everturn: Everturn, url: str, tmp_path: Path) -> None:
    first = rows(everturn("sessions", "compact", "--store", url, "--json"))
    assert {(row["objects_before"], row["segments"], row["freed"]) for row in first} == {(5, 1, 0)}
    make_older(tmp_path / "store", "task-1", 1)
    second = everturn("sessions", "compact", SESSION[:6], "--store", url)
    assert "5 objects freed" in second.stdout
    assert second.returncode == 0
    assert listed(everturn, url) == {SESSION, OTHER}


def test_delete_shows_first_and_deletes_only_with_consent(everturn: Everturn, url: str) -> None:
    dry = everturn("sessions", "delete", SESSION, "--store", url, "--dry-run")
    assert dry.returncode == 0
    assert SESSION[:8] in dry.stdout
    assert "task-1" in dry.stdout
    unasked = everturn("sessions", "delete", SESSION, "--store", url)
    assert unasked.returncode == 2
    assert "nobody was asked" in unasked.stderr
    assert listed(everturn, url) == {SESSION, OTHER}
    done = everturn("sessions", "delete", "task-1", "--store", url, "--yes", "--json")
    assert [(row["session_id"], row["deleted"]) for row in rows(done)] == [(SESSION, True)]
    assert listed(everturn, url) == {OTHER}


def test_deleting_what_is_not_there_is_refused(everturn: Everturn, url: str) -> None:
    result = everturn("sessions", "delete", "nosuch", "--store", url, "--yes")
    assert result.returncode == 2
    assert "there is no session nosuch" in result.stderr


def test_expire_deletes_what_is_old_and_not_held(everturn: Everturn, url: str) -> None:
    held = everturn("sessions", "hold", OTHER, "--store", url, "--reason", "case 12", "--by", "ada")
    assert held.returncode == 0
    refused = everturn("sessions", "expire", "--older-than", "90d", "--store", url, "--yes", "--json")
    assert [(row["session_id"], row["held"], row["deleted"]) for row in rows(refused)] == [(OTHER, True, False)]
    direct = everturn("sessions", "delete", OTHER, "--store", url, "--yes")
    assert direct.returncode == 2
    assert "case 12" in direct.stderr
    lifted = everturn("sessions", "hold", OTHER, "--store", url, "--lift", "--by", "bob", "--json")
    assert [(row["held"], row["by"], row["lifted_by"]) for row in rows(lifted)] == [(False, "ada", "bob")]
    dry = everturn("sessions", "expire", "--older-than", "90d", "--store", url, "--dry-run", "--json")
    assert [(row["session_id"], row["deleted"]) for row in rows(dry)] == [(OTHER, False)]
    done = everturn("sessions", "expire", "--older-than", "90d", "--store", url, "--yes", "--json")
    assert [(row["session_id"], row["deleted"]) for row in rows(done)] == [(OTHER, True)]
    assert listed(everturn, url) == {SESSION}


@pytest.mark.parametrize("age", ["90", "d", "-1d", "1.5d", "0d", "90 days", ""])
def test_an_age_that_is_none_is_refused(age: str) -> None:
    with pytest.raises(Invalid, match="is no age"):
        milliseconds(age)


def test_a_wrong_age_is_one_line_for_whoever_types_it(everturn: Everturn, url: str) -> None:
    result = everturn("sessions", "expire", "--older-than", "soon", "--store", url, "--yes")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "'soon' is no age" in result.stderr


def test_a_hold_needs_a_reason(everturn: Everturn, url: str) -> None:
    result = everturn("sessions", "hold", SESSION, "--store", url)
    assert result.returncode == 2
    assert "--reason" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["compact", "--json"]])
def test_a_full_disk_is_one_line_for_whoever_types_it(url: str, command: list[str]) -> None:
    program = Path(sys.executable).with_name("everturn")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [program, "sessions", *command, "--store", url],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: the output could not be written: ")
    assert done.stderr.count("\n") == 1


def test_no_name_stands_for_no_session(everturn: Everturn, url: str) -> None:
    done = everturn("sessions", "delete", "", "--scope", "task-1", "--yes", "--store", url)
    assert done.returncode == 2
    assert "no session was named" in done.stderr
    assert SESSION in listed(everturn, url)


def test_deleting_one_sub_transcript_tells_of_that_one(everturn: Everturn, url: str) -> None:
    key: SessionKey = {"project_key": "-home-a", "session_id": SESSION, "subpath": "subagents/agent-1"}
    line: Any = {"type": "user", "uuid": "u"}
    anyio.run(TranscriptStore.open(url, scope="task-1").append, key, [line])
    command = ["sessions", "delete", SESSION, "--store", url, "--json"]
    assert everturn(*command, "--subpath", "subagents/agent-2", "--dry-run").returncode == 2
    (row,) = rows(everturn(*command, "--subpath", "subagents/agent-1", "--yes"))
    assert (row["subpath"], row["objects"], row["deleted"]) == ("subagents/agent-1", 1, True)
    assert SESSION in listed(everturn, url)


def test_ids_are_shortened_as_far_as_they_stay_apart() -> None:
    assert short_ids(["12345678-9", "22345678-9"]) == {"12345678-9": "12345678", "22345678-9": "22345678"}
    assert short_ids(["12345678-9abc", "12345678-9abd"])["12345678-9abd"] == "12345678-9abd"
    assert short_ids(["same", "same"]) == {"same": "same"}
