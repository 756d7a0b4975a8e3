"""`everturn workdirs`: what it shows, what it removes, and what it never does."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from everturn.cli.app import _run
from everturn.git.locks import Lock
from everturn.registry import open_registry
from everturn.settings import RUN_MARKER, Settings
from everturn.workdirs.records import WorkdirRecord
from everturn.workdirs.root import Root
from everturn.workshop import Workshop
from workdirs.yard import Origin


@dataclass
class Called:
    """What a command answered."""

    code: int
    output: str
    complaint: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What it printed as JSON."""
        return [json.loads(line) for line in self.output.splitlines()]


Command = Callable[..., Called]


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path / "remotes" / "shop", {"a.txt": "a\n", ".gitignore": "*.o\n"})


@pytest.fixture
def workdirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The commands, run in this process, on a machine of their own."""
    (tmp_path / "desk").mkdir()
    monkeypatch.chdir(tmp_path / "desk")
    monkeypatch.setenv("EVERTURN_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "160")

    def call(*arguments: str) -> Called:
        code = _run(["workdirs", *arguments])
        return Called(code, *capsys.readouterr())

    return call


def root_of(tmp_path: Path) -> Root:
    settings = Settings.load(state=tmp_path / "state")
    return Workshop.open(settings, open_registry(settings.registry_url())).root


def opened(workdirs: Command, origin: Origin, issue: int = 1, agent: str = "fixer", *more: str) -> Path:
    done = workdirs("open", "--agent", agent, "--repo", origin.url, "--issue", str(issue), *more)
    assert done.code == 0, done.complaint
    return Path(done.output.strip())


@pytest.fixture
def busy(workdirs: Command, origin: Origin, tmp_path: Path) -> Iterator[Path]:
    """A workdir that a run is at work in."""
    path = opened(workdirs, origin, 9, "busy")
    lock = root_of(tmp_path).try_workdir(path.name)
    assert isinstance(lock, Lock)
    yield path
    lock.release()


def test_where_there_is_nothing_nothing_is_made(workdirs: Command, tmp_path: Path) -> None:
    assert "there are no workdirs" in workdirs("list").output
    assert workdirs("usage", "--measure").code == 0
    assert "there is nothing to do" in workdirs("sweep").output
    assert workdirs("list", "--json").lines == []
    assert not (tmp_path / "state" / "workdirs").exists()


def test_open_prints_the_path_of_a_workdir_and_nothing_else(workdirs: Command, origin: Origin) -> None:
    path = opened(workdirs, origin, 1, "fixer", "--branch", "fix/1")
    assert (path / "a.txt").read_text() == "a\n"
    (again,) = workdirs(
        "open", "--agent", "fixer", "--repo", origin.url, "--issue", "1", "--branch", "fix/1", "--json"
    ).lines
    assert (again["path"], again["name"], again["outcome"]) == (str(path), path.name, "kept")


def test_open_ends_what_is_left_of_an_agent_before_it_changes_anything(
    workdirs: Command, origin: Origin, tmp_path: Path
) -> None:
    path = opened(workdirs, origin)
    root = root_of(tmp_path)
    record = WorkdirRecord.read(root, path.name)
    assert record is not None
    record.but(run_id="killed").write(root)
    environment = {"PATH": os.environ["PATH"], RUN_MARKER: "killed:session:1"}
    with subprocess.Popen(["sleep", "600"], cwd=path, env=environment) as left:
        try:
            opened(workdirs, origin)
            assert left.wait(5) < 0
        finally:
            left.kill()


def test_open_fresh_rescues_what_is_unsaved_and_says_where_it_is(workdirs: Command, origin: Origin) -> None:
    path = opened(workdirs, origin)
    (path / "new.txt").write_text("mine")
    done = workdirs("open", "--agent", "fixer", "--repo", origin.url, "--issue", "1", "--fresh")
    assert "quarantine" in done.complaint
    assert not (path / "new.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--agent", "a", "--issue", "1"), "has an issue but no repository"),
        (("--task", "t"), "task:t has no repository"),
        (("--task", "t", "--issue", "1"), "both --task and --issue"),
        (("--task", "t", "--repo", "/nowhere"), "does not appear to be a git repository"),
        (("--task", "t", "--repo", "--upload-pack=x"), "looks like an option"),
        (("--task", "t", "--repo", "ext::sh -c x"), "program of its own choice"),
        (("--task", "t", "--repo", "/tmp", "--branch", "a..b"), "a name that git does not take"),
    ],
)
def test_what_cannot_be_opened_is_one_line_and_exit_code_2(
    workdirs: Command, arguments: tuple[str, ...], message: str
) -> None:
    done = workdirs("open", *arguments)
    assert (done.code, done.output) == (2, "")
    assert message in done.complaint
    assert len(done.complaint.splitlines()) == 1


@pytest.mark.slow
def test_list_shows_what_is_live_idle_and_unsaved(workdirs: Command, origin: Origin, busy: Path) -> None:
    saved, unsaved = opened(workdirs, origin, 1), opened(workdirs, origin, 2)
    (unsaved / "new.txt").write_text("mine")
    found = {each["name"]: each for each in workdirs("list", "--unsaved", "--json").lines}
    assert {name: each["state"] for name, each in found.items()} == {
        busy.name: "live",
        saved.name: "idle",
        unsaved.name: "idle",
    }
    assert [found[path.name]["unsaved"] for path in (busy, saved, unsaved)] == [
        None,
        [],
        ["1 untracked file or folder"],
    ]
    shown = workdirs("list", "--unsaved").output
    assert re.search(rf"{busy.name} .* live ", shown)
    assert f"{unsaved.name}: 1 untracked file or folder" in shown
    assert "unsaved" not in workdirs("list").output


def test_a_name_cannot_control_the_terminal(workdirs: Command, origin: Origin, tmp_path: Path) -> None:
    path = opened(workdirs, origin)
    record = tmp_path / "state" / "workdirs" / "records" / f"{path.name}.json"
    facts = json.loads(record.read_text())
    record.write_text(json.dumps({**facts, "branch": "x\x1b[31my", "repo": "https://h/\x1b[2Jz"}))
    for arguments in (("list",), ("list", "--json"), ("usage", "--measure")):
        assert "\x1b" not in workdirs(*arguments).output


# --- Reset ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_reset_removes_what_is_saved_and_puts_the_rest_into_quarantine(workdirs: Command, origin: Origin) -> None:
    saved, unsaved = opened(workdirs, origin, 1), opened(workdirs, origin, 2)
    (unsaved / "new.txt").write_text("mine")
    fates = {each["name"]: each for each in workdirs("reset", "--all", "--json").lines}
    assert fates[saved.name]["action"] == "removed"
    assert fates[unsaved.name]["action"] == "quarantined"
    assert (Path(fates[unsaved.name]["path"]) / "tree" / "new.txt").read_text() == "mine"
    assert not saved.exists()
    assert not unsaved.exists()
    assert "there are no workdirs" in workdirs("list").output


@pytest.mark.slow
def test_reset_by_force_is_the_override(workdirs: Command, origin: Origin, tmp_path: Path) -> None:
    path = opened(workdirs, origin)
    (path / "new.txt").write_text("mine")
    refused = workdirs("reset", str(path), "--force")
    assert refused.code == 2
    assert "nobody was asked" in refused.complaint
    assert path.exists()
    assert workdirs("reset", path.name, str(path), "--force", "--yes").code == 0  # a name and a path: one workdir
    assert not path.exists()
    assert not list((tmp_path / "state" / "workdirs" / "quarantine").iterdir())


@pytest.mark.slow
def test_a_run_that_is_at_work_is_never_reset(workdirs: Command, busy: Path) -> None:
    done = workdirs("reset", busy.name, "--force", "--yes")
    assert done.code == 1
    assert "a run is at work in it" in done.output
    assert (busy / "a.txt").exists()


@pytest.mark.slow
def test_a_dry_run_says_what_would_be_done_and_does_nothing(workdirs: Command, origin: Origin) -> None:
    saved, unsaved = opened(workdirs, origin, 1), opened(workdirs, origin, 2)
    (unsaved / "new.txt").write_text("mine")
    done = workdirs("reset", "--all", "--dry-run")
    assert "would be removed" in done.output
    assert "would be rescued" in done.output
    assert saved.exists()
    assert unsaved.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (("--agent", "fixer"), {"tester"}),
        (("--work", "tester@{repo}#1"), {"fixer"}),
        (("--repo", "{repo}/"), set()),
        (("--repo", "/elsewhere"), {"fixer", "tester"}),
        (("--agent", "fixer", "--work", "tester@{repo}#1"), {"fixer", "tester"}),
    ],
)
def test_reset_takes_those_that_are_selected(
    workdirs: Command, origin: Origin, arguments: tuple[str, ...], left: set[str]
) -> None:
    for agent in ("fixer", "tester"):
        opened(workdirs, origin, 1, agent)
    assert workdirs("reset", *(each.format(repo=origin.url) for each in arguments)).code == 0
    assert {each["agent"] for each in workdirs("list", "--json").lines} == left


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing says which workdirs"),
        (("x", "--all"), "both named and selected"),
        (("nowhere",), "there is no workdir nowhere"),
        (("..",), "is no workdir"),
        (("/",), "is no workdir"),
        (("../../desk",), "there is no workdir desk"),
    ],
)
def test_a_reset_of_nothing_is_one_line_and_exit_code_2(
    workdirs: Command, origin: Origin, arguments: tuple[str, ...], message: str
) -> None:
    opened(workdirs, origin)
    done = workdirs("reset", *arguments)
    assert done.code == 2
    assert message in done.complaint
    assert len(workdirs("list", "--json").lines) == 1


@pytest.mark.slow
def test_what_lies_in_quarantine_goes_by_force_alone(workdirs: Command, origin: Origin) -> None:
    path = opened(workdirs, origin)
    (path / "new.txt").write_text("mine")
    (fate,) = workdirs("reset", path.name, "--json").lines
    place = Path(fate["path"])
    assert workdirs("reset", place.name).code == 1
    assert place.exists()
    assert workdirs("reset", str(place), "--force", "--yes").code == 0
    assert not place.exists()


@pytest.mark.slow
# --- Sweep and usage ------------------------------------------------------------------------------------------------
def test_sweep_removes_what_is_old_and_says_what_it_keeps_and_why(
    workdirs: Command, origin: Origin, monkeypatch: pytest.MonkeyPatch, busy: Path
) -> None:
    saved, unsaved = opened(workdirs, origin, 1), opened(workdirs, origin, 2)
    (unsaved / "new.txt").write_text("mine")
    monkeypatch.setenv("EVERTURN_WORKDIR_MAX_AGE_S", "0.001")
    dry = workdirs("sweep", "--dry-run", "--json").lines
    assert saved.exists()
    *fates, summary = workdirs("sweep", "--json").lines
    actions = {each["name"]: each["action"] for each in fates if each["kind"] == "workdir"}
    assert actions == {busy.name: "kept", saved.name: "removed", unsaved.name: "kept"}
    assert actions == {each["name"]: each["action"] for each in dry if each["kind"] == "workdir"}
    assert summary["kind"] == "summary"
    assert summary["freed_bytes"] > 0
    assert not saved.exists()
    assert (unsaved / "new.txt").exists()
    assert "kept workdir" in workdirs("sweep").output


@pytest.mark.slow
def test_usage_shows_what_was_measured(workdirs: Command, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    path = opened(workdirs, origin)
    with (path / "built.o").open("wb") as built:
        built.write(b"x" * 100_000)
        os.fsync(built)  # a file that is still in memory takes no room yet
    opened(workdirs, origin)  # what is not used is not measured again
    (before,) = workdirs("usage", "--json").lines
    monkeypatch.setenv("EVERTURN_WORKDIRS_QUOTA_BYTES", "1000")
    (found,) = workdirs("usage", "--measure", "--json").lines
    assert before["unmeasured"] in (0, 1, 2)
    assert found["unmeasured"] == 0
    assert found["workdirs"][path.name] >= 100_000
    assert found["by_agent"]["fixer"] == found["trees_bytes"]
    assert 100_000 <= found["ignored_bytes"] < found["trees_bytes"]
    assert found["quota_bytes"] == 1000
    shown = workdirs("usage").output
    assert "ignored by git" in shown
    assert "quota" in shown
    assert origin.url in shown
