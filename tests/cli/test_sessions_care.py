"""`everturn sessions verify`, `repair` and `import` as a person or a program calls them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.console import Console
from cli.turns import start, turn
from everturn.log import reader, stock
from everturn.log.names import Span, part
from everturn.log.objects import run
from everturn.log.stores import admit
from everturn.testing import ModelRequest, Reply, ScriptedModel, ToolUse, cli_environment, kill_machine
from polling import wait_until
from upkeep.shelf import MODE, REF, SESSION, Shelf, said

PARTS: list[list[Any]] = [[said(1), MODE], [said(2)], [said(3), MODE], [said(4)]]
LOCAL: list[Any] = [entry for entries in PARTS for entry in entries]


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """A store in a folder, with one whole session in it, that the command finds by itself."""
    folder = tmp_path / "store"
    for module in (reader, stock):
        monkeypatch.setattr(module, "RELIST_PAUSE_S", 0.0)  # what is missing here stays missing
    monkeypatch.setenv("EVERTURN_STORE", folder.as_uri())
    found = Shelf.in_folder(folder)
    run(admit(found.objects, REF.scope, "store"))
    found.lay(*PARTS)
    return found


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return write(tmp_path / "local.jsonl", LOCAL)


def write(path: Path, entries: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


# --- verify ---------------------------------------------------------------------------------------------------------


def test_verify_says_that_all_is_well_with_exit_code_0(shelf: Shelf, sessions: Console) -> None:
    assert "1 session checked: no damage" in sessions("verify")
    assert "6 entries" in sessions("verify", SESSION[:4])
    session, summary = sessions.json("verify")
    assert (session["session_id"], session["scope"], session["damaged"]) == (SESSION, REF.scope, False)
    assert (summary["type"], summary["sessions"], summary["damaged"]) == ("summary", 1, 0)


def test_verify_names_what_is_wrong_with_exit_code_1(shelf: Shelf, sessions: Console) -> None:
    shelf.delete(2)
    shelf.spoil(part(3))
    shelf.lay([said(5, parentUuid="\x1b[31mred")], first=5)
    shelf.put(shelf.key("notes.txt"), b"?")
    shown = sessions("verify", code=1)
    for words in (
        "hole (number 2)",
        "damaged (number 3)",
        "[31mred",
        "foreign",
        "everturn sessions repair",
        "1 damaged",
    ):
        assert words in shown
    assert "\x1b" not in shown
    session, summary = sessions.json("verify", SESSION, "--scope", REF.scope, code=1)
    assert {finding["kind"] for finding in session["findings"]} >= {"hole", "damaged", "foreign", "chain"}
    assert all(finding["message"] and finding["advice"] for finding in session["findings"])
    assert summary["damaged"] == 1


def test_verify_of_a_scope_leaves_other_scopes_alone(shelf: Shelf, sessions: Console) -> None:
    shelf.delete(2)
    assert "0 sessions checked" in sessions("verify", "--scope", "elsewhere")
    sessions("verify", "--scope", REF.scope, code=1)
    sessions("verify", "no-such-session", code=2)
    assert "there is no session" in sessions.error


# --- repair ---------------------------------------------------------------------------------------------------------


def test_repair_takes_what_is_missing_from_a_local_transcript(shelf: Shelf, sessions: Console, local: Path) -> None:
    shelf.delete(2)
    shown = sessions("repair", SESSION, "--from", local, "--dry-run")
    assert "number 2: 1 entry in the local transcript" in shown
    assert "nothing was done" in shown
    sessions("verify", code=1)
    assert "mended" in sessions("repair", SESSION, "--from", local)
    assert shelf.entries() == LOCAL
    assert "nothing to repair" in sessions("repair", SESSION, "--from", local)
    (record,) = sessions.json("repair", SESSION)
    assert (record["gaps"], record["damaged"], record["subpath"]) == ([], False, None)


def test_repair_takes_what_was_exported(shelf: Shelf, sessions: Console, tmp_path: Path) -> None:
    exported = tmp_path / "exported.jsonl"
    sessions("export", SESSION, "--format", "jsonl", "--output", exported)
    shelf.delete(1, 3)
    sessions("repair", SESSION, "--from", exported)
    assert shelf.entries() == LOCAL


def test_repair_from_a_transcript_with_a_torn_end_of_a_sub_transcript(
    shelf: Shelf, sessions: Console, tmp_path: Path
) -> None:
    sub = "subagents/agent-1"
    shelf.lay([said(11, 0)], [said(12)], subpath=sub)
    file = write(tmp_path / "sub.jsonl", [said(11, 0), said(12), said(13), said(14)])
    file.write_bytes(file.read_bytes()[:-5])
    (record,) = sessions.json("repair", SESSION, "--from", file, "--subpath", sub)
    assert (record["appended"], record["subpath"]) == (1, sub)
    assert shelf.entries(sub) == [said(11, 0), said(12), said(13)]


@pytest.mark.slow
def test_repair_without_a_transcript_is_refused_unless_somebody_agrees_to_the_loss(
    shelf: Shelf, sessions: Console
) -> None:
    shelf.delete(2, 3)
    before = shelf.names("")
    for arguments, words in (
        ((), "--accept-loss"),
        (("--yes",), "--accept-loss"),
        (("--accept-loss",), "--yes"),
        (("--accept-loss", "--json"), "--yes"),
        (("--accept-loss", "--from", "x.jsonl"), "give one"),
    ):
        sessions("repair", SESSION, *arguments, code=2)
        assert words in sessions.error
    assert shelf.names("") == before
    (record,) = sessions.json("repair", SESSION, "--accept-loss", "--yes")
    assert [(gap["first"], gap["last"], gap["entries"]) for gap in record["gaps"]] == [(2, 3, None)]
    assert shelf.entries() == [*PARTS[0], *PARTS[3]]
    assert "repaired" in sessions("verify", SESSION)


def test_repair_refuses_a_transcript_that_does_not_fit(shelf: Shelf, sessions: Console, tmp_path: Path) -> None:
    shelf.delete(2)
    other = write(tmp_path / "other.jsonl", [said(number) for number in range(70, 80)])
    sessions("repair", SESSION, "--from", other, code=2)
    assert "does not fit" in sessions.error
    sessions("repair", SESSION, "--from", tmp_path / "none.jsonl", code=2)
    assert "there is no file" in sessions.error


def test_repair_takes_a_damaged_segment_away_without_asking_as_nothing_is_lost(
    shelf: Shelf, sessions: Console
) -> None:
    shelf.spoil(shelf.compact(1, 3, keep=True))
    (record,) = sessions.json("repair", SESSION)
    assert record["taken_away"] == [Span(1, 3, segment=True).file_name]
    assert shelf.entries() == LOCAL


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2)])
@pytest.mark.slow
def test_repair_asks_at_a_terminal(shelf: Shelf, everturn: Any, answer: str, code: int) -> None:
    shelf.delete(2)
    ours, theirs = pty.openpty()
    everturn.variables["EVERTURN_STORE"] = shelf.folder.as_uri()  # type: ignore[union-attr]
    command = [Path(sys.executable).with_name("everturn"), "sessions", "repair", SESSION, "--accept-loss"]
    environment = {**cli_environment("http://127.0.0.1:1", everturn.home), **everturn.variables}
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, env=environment, cwd=everturn.desk) as asked:
        os.write(ours, answer.encode())
        shown = asked.communicate(timeout=60)[0].decode()
    os.close(ours)
    os.close(theirs)
    assert "Give up number 2 for good?" in shown
    assert asked.returncode == code


# --- import ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def agent_folder(tmp_path: Path) -> Path:
    """What the agent command keeps here: HOME is the test's folder."""
    folder = tmp_path / ".claude"
    write(folder / "projects" / "-home-a" / f"{SESSION}.jsonl", LOCAL)
    return folder


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is new."""
    monkeypatch.setenv("EVERTURN_STORE", (tmp_path / "empty").as_uri())


@pytest.mark.usefixtures("empty")
def test_import_brings_in_everything_once(agent_folder: Path, sessions: Console) -> None:
    assert "1 session would be brought in" in sessions("import", "--all", "--dry-run")
    sessions("verify", code=2)  # there is no store yet
    imported, summary = sessions.json("import", "--all")
    assert (imported["session_id"], imported["scope"], imported["entries"]) == (SESSION, "-home-a", 6)
    assert (imported["status"], summary["sessions"], summary["refused"]) == ("imported", 1, 0)
    assert "nothing to do" in sessions("import", agent_folder)
    assert "no damage" in sessions("verify")
    assert SESSION[:8] in sessions("list")


@pytest.mark.usefixtures("empty")
def test_import_goes_into_the_scope_or_task_that_was_named(
    agent_folder: Path, sessions: Console, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert sessions.json("import", agent_folder, "--task", "tap")[0]["scope"] == "task:tap"
    assert sessions.json("import", agent_folder, "--scope", "mine")[0]["scope"] == "mine"
    write(tmp_path / "other" / "projects" / "-srv-b" / f"{SESSION}.jsonl", LOCAL[:1])
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "other"))
    assert sessions.json("import", "--project-dir", "/srv/b")[0]["scope"] == "-srv-b"
    for arguments in ([], [agent_folder, "--scope", "a", "--task", "b"]):
        sessions("import", *arguments, code=2)
        assert "error: " in sessions.error


@pytest.mark.usefixtures("empty")
def test_import_refuses_what_is_wrong_and_goes_on_with_the_rest(agent_folder: Path, sessions: Console) -> None:
    torn = agent_folder / "projects" / "-home-a" / "00000000-0000-4000-8000-000000000000.jsonl"
    torn.write_text('{"type":"us')
    shown = sessions("import", "--all", code=1)
    assert "1 session brought in, 1 refused" in shown
    assert f"the last line of {torn} is cut off" in " ".join(shown.split())


def script(request: ModelRequest) -> Reply:
    text = request.last_user_text()
    if "COUNT THEM" in text:
        return Reply("There are seven.")
    if "hang" in text and "go on" not in text:
        return Reply(ToolUse("Bash", {"command": "touch hanging; for i in $(seq 600); do sleep 0.1; done"}))
    if "look" in text and not request.tool_results():
        delegate = {"description": "Count", "prompt": "COUNT THEM", "run_in_background": False}
        return Reply("I look.", ToolUse("Bash", {"command": "echo a"}), ToolUse("Agent", delegate))
    return Reply("Well.")


@pytest.mark.slow
@pytest.mark.cli
def test_a_session_recorded_here_is_whole_once_imported_and_resumes_elsewhere(everturn: Any, tmp_path: Path) -> None:
    """Two parallel tools, a subagent, a resume, a kill in mid-tool, a compaction; nothing of that is a finding."""
    model = ScriptedModel(script)
    elsewhere = tmp_path / "elsewhere"
    for folder in ("home", "desk", "tmp"):
        (elsewhere / folder).mkdir(parents=True)
    store = f"file://{tmp_path}/store"
    with model.serve() as url:
        turn(url, everturn.folder, "Have a look.", session_id=SESSION)
        with start(url, everturn.folder, "Now hang.", resume=SESSION) as hanging:
            wait_until((everturn.desk / "hanging").exists, "the tool is running", 60)
            kill_machine(hanging.pid)
        turn(url, everturn.folder, "Please go on.", resume=SESSION)
        turn(url, everturn.folder, "/compact", resume=SESSION)
        turn(url, everturn.folder, "One more, go on.", resume=SESSION)
        imported = everturn("sessions", "import", "--all", "--task", "tap", "--store", store)
        assert (imported.returncode, imported.stderr) == (0, "")
        checked = everturn("sessions", "verify", "--store", store, "--json")
        assert (checked.returncode, checked.stderr) == (0, "")
        session = json.loads(checked.stdout.splitlines()[0])
        assert [finding for finding in session["findings"] if finding["severity"] != "info"] == []
        before = len(model.requests)
        turn(url, elsewhere, "Are you still there?", resume=SESSION, store=store, scope="task:tap")
    said_again = "\n".join(text for request in model.requests[before:] for text in request.texts())
    assert "One more, go on." in said_again
    assert "Are you still there?" in said_again
    again = everturn("sessions", "import", "--all", "--task", "tap", "--store", store)
    assert "nothing to do" in again.stdout  # what was said elsewhere is only in the store


@pytest.mark.slow
@pytest.mark.cli
def test_what_the_agent_has_mirrored_is_the_same_as_what_it_keeps_here(everturn: Any, tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    given = {"store": store, "scope": "task:tap", "session_store_flush": "eager"}
    with ScriptedModel(script).serve() as url:
        turn(url, everturn.folder, "Have a look.", session_id=SESSION, **given)
    (main,) = (everturn.home / ".claude" / "projects").glob("*/*.jsonl")
    assert b'"type":"api-request"' in main.read_bytes()
    done = everturn("sessions", "import", "--all", "--task", "tap", "--store", store, "--json")
    assert [json.loads(line).get("status") for line in done.stdout.splitlines()] == ["unchanged", None]
    repaired = everturn("sessions", "repair", SESSION, "--from", main, "--store", store)
    assert (repaired.returncode, "nothing to repair" in repaired.stdout) == (0, True)
    folder = next((tmp_path / "store" / "sessions").glob("*/*/*/main"))
    before = everturn("sessions", "verify", "--store", store, "--json").stdout.splitlines()[0]
    for seq in (2, 4, 5):
        (folder / part(seq).file_name).unlink()
    assert everturn("sessions", "verify", "--store", store).returncode == 1
    assert everturn("sessions", "repair", SESSION, "--from", main, "--store", store).returncode == 0
    after = everturn("sessions", "verify", "--store", store, "--json").stdout.splitlines()[0]
    assert json.loads(after)["entries"] == json.loads(before)["entries"]
    assert "nothing to do" in everturn("sessions", "import", "--all", "--task", "tap", "--store", store).stdout
