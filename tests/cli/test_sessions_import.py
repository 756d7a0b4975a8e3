"""`everturn sessions import --from` as it is typed, against a real server that others have filled."""

from __future__ import annotations

import json
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from cli.console import Console
from cli.turns import turn
from everturn import Settings, TranscriptStore
from everturn.testing import ModelRequest, Reply, ScriptedModel, ToolUse
from imports.adapters import RedisAdapter
from imports.servers import Server, redis_server, redis_url
from polling import wait_until
from upkeep.shelf import SESSION, said, write

pytestmark = pytest.mark.slow

PROJECT = "-home-ada-web"
SUBPATH = "subagents/agent-1"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with redis_server() as server:
        yield server


@pytest.fixture
def elsewhere(server: Server) -> Iterator[RedisAdapter]:
    """A store with a session of two transcripts, and one that says nothing of its type."""
    adapter = RedisAdapter(server)
    adapter.append(PROJECT, SESSION, [said(1), said(2)])
    adapter.append(PROJECT, SESSION, [said(11, 0)], SUBPATH)
    yield adapter
    adapter.client.flushall()
    adapter.client.close()


def rows(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def loaded(
    store: str, scope: str, session: str, subpath: str | None = None, project: str = PROJECT
) -> list[Any] | None:
    async def main() -> Any:
        async with TranscriptStore.open(store, scope=scope, settings=Settings.load()) as opened:
            key: Any = {"project_key": project, "session_id": session}
            return await opened.load({**key, "subpath": subpath} if subpath else key)

    found: list[Any] | None = anyio.run(main)
    return found


def test_everything_comes_in_once_and_nothing_is_written_by_a_dry_run(
    sessions: Console, elsewhere: RedisAdapter, server: Server, tmp_path: Path
) -> None:
    store = (tmp_path / "store").as_uri()
    (tmp_path / "url").write_text(elsewhere.url + "\n")
    command = ("import", "--store", store, "--from")
    dry = sessions(*command, f"@{tmp_path}/url", "--dry-run")
    assert "1 session would be brought in, 0 refused" in dry
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []
    assert sessions.json(*command, elsewhere.url) == [
        {
            "source": f"redis://127.0.0.1:{server.port}/0?prefix=transcripts {PROJECT}/{SESSION}",
            "project_key": PROJECT,
            "session_id": SESSION,
            "scope": PROJECT,
            "status": "imported",
            "entries": 3,
            "message": "",
        },
        {"type": "summary", "dry_run": False, "sessions": 1, "entries": 3, "refused": 0},
    ]
    again = sessions(*command, elsewhere.url)
    assert "nothing to do" in again
    assert server.password not in dry + again + sessions.error
    assert loaded(store, PROJECT, SESSION) == [said(1), said(2)]
    assert loaded(store, PROJECT, SESSION, SUBPATH) == [said(11, 0)]
    sessions("verify", "--store", store)


def test_a_selection_goes_into_a_task_and_refusals_are_told_by_the_exit_code(
    sessions: Console, elsewhere: RedisAdapter, tmp_path: Path
) -> None:
    other = str(uuid.uuid4())
    elsewhere.append("-srv-b", other, [{"name": "no transcript"}])
    store = (tmp_path / "store").as_uri()
    command = ("import", "--store", store, "--from", elsewhere.url, "--task", "7")
    chosen = sessions.json(*command, "--session", SESSION[:5], "--project", PROJECT, "--session", "nosuch", code=1)
    assert [(row["status"], row["scope"]) for row in chosen[:-1]] == [("refused", None), ("imported", "task:7")]
    everything = sessions.json(*command, code=1)
    assert {(row["status"], row["session_id"]) for row in everything[:-1]} == {
        ("unchanged", SESSION),
        ("refused", other),
    }
    by_folder = sessions.json(*command, "--project-dir", "/srv/b", code=1)
    assert [row["session_id"] for row in by_folder[:-1]] == [other]
    elsewhere.client.rpush(f"transcripts:{PROJECT}:{SESSION}", '{"type"', json.dumps(said(3)))
    assert "--skip-malformed" in sessions(*command, "--project", PROJECT, code=1)
    left_out = sessions(*command, "--project", PROJECT, "--skip-malformed")
    assert "1 entry; malformed lines left out: 1" in left_out


def test_what_makes_no_sense_is_one_line_and_exit_code_2(sessions: Console, tmp_path: Path) -> None:
    folder = write(tmp_path / "projects" / PROJECT / f"{SESSION}.jsonl", said(1)).parents[1]
    command = ("import", "--store", (tmp_path / "store").as_uri())
    (tmp_path / "empty").write_text("\n")
    for arguments, words in (
        (("--from", "redis://127.0.0.1:1/0", folder), "--from and a path"),
        (("--from", folder, "--skip-malformed"), "--skip-malformed is for --from URL"),
        (("--from", "ftp://x"), "cannot be imported from ftp"),
        (("--from", f"@{tmp_path}/none"), "cannot be read"),
        (("--from", f"@{tmp_path}/empty"), "there is nothing in"),
        (("--from", "postgresql://127.0.0.1:1/x"), "does not answer"),
    ):
        assert sessions(*command, *arguments, code=2) == ""
        assert words in sessions.error
        assert sessions.error.count("\n") == 1
    assert "1 session brought in" in sessions(*command, "--from", folder, "--session", SESSION)


def test_an_import_that_is_killed_is_run_again_and_nothing_is_there_twice(
    everturn: Any, elsewhere: RedisAdapter, tmp_path: Path
) -> None:
    """Many notes have no uuid, so that readers could not tell a second one from the first."""
    store = tmp_path / "store"
    note = {"type": "mode", "text": "x" * 60_000}
    sessions = [str(uuid.UUID(int=number)) for number in range(1, 13)]
    for session in sessions:
        elsewhere.append(PROJECT, session, [note] * 50)
    command = ("sessions", "import", "--from", elsewhere.url, "--store", store.as_uri(), "--json")
    with everturn.start(*command) as process:
        wait_until(lambda: len(list(store.glob("sessions/*/*/*/main/*"))) > 8, "parts of some sessions")
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = everturn(*command)
    assert done.returncode == 0
    *outcomes, summary = rows(done)
    assert {"imported", "continued"} & {outcome["status"] for outcome in outcomes}
    assert 0 < summary["entries"] < 12 * 50 + 3
    for session in sessions:
        assert loaded(store.as_uri(), PROJECT, session) == [note] * 50


def script(request: ModelRequest) -> Reply:
    text = request.last_user_text()
    if "COUNT THEM" in text:
        return Reply("There are seven.")
    if "look" in text and not request.tool_results():
        delegate = {"description": "Count", "prompt": "COUNT THEM", "run_in_background": False}
        return Reply("I look.", ToolUse("Agent", delegate))
    return Reply("Well.")


@pytest.mark.cli
def test_what_the_agent_said_into_another_store_goes_on_from_this_one(
    everturn: Any, server: Server, tmp_path: Path
) -> None:
    store = (tmp_path / "store").as_uri()
    model = ScriptedModel(script)
    with model.serve() as url:
        turn(url, everturn.folder, "Have a look, please.", session_id=SESSION, redis=[server.port, server.password])
        source = f"{redis_url(server)}?prefix=transcripts"
        done = everturn("sessions", "import", "--from", source, "--task", "tap", "--store", store, "--json")
        assert (done.returncode, rows(done)[0]["status"]) == (0, "imported")
        checked = rows(everturn("sessions", "verify", "--store", store, "--json"))
        assert [each for each in checked[0]["findings"] if each["severity"] != "info"] == []
        before = len(model.requests)
        given = {"store": store, "scope": "task:tap"}
        turn(url, everturn.beside("other").folder, "Are you still there?", resume=SESSION, **given)
    said_again = "\n".join(text for request in model.requests[before:] for text in request.texts())
    assert "Have a look, please." in said_again
    assert "Are you still there?" in said_again
