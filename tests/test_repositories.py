"""Runs of the real agent command in a repository: who it is there, what it may reach, and where it goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from everturn import Held, Run, Runtime, WorkItem
from everturn.clock import SystemClock
from everturn.errors import Denied, Invalid
from everturn.model import GitCredential
from everturn.testing import Reply, ScriptedModel, ToolUse
from git.https_git import Authority, Host, make_bare, serve
from machines import Machine, MakeMachine, finish, options, result_of
from workdirs.yard import Origin, git

TOKEN = "tok-3b1f0e77aa12-SECRET"
SAVE = "echo more >> tap.txt && git add . && git commit --quiet -m Mended && git push --quiet && env > ../../../seen"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeMachine:
    return lambda name: Machine(tmp_path / name, tmp_path / "shared", monkeypatch)


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path / "remotes" / "shop", {"tap.txt": "it leaks\n"})


def answers(run: Run) -> bool:
    return not result_of(finish(run)).is_error


@pytest.mark.slow
@pytest.mark.cli
def test_an_agent_commits_under_its_name_and_pushes_to_its_branch(machine: MakeMachine, origin: Origin) -> None:
    here = machine("a")
    (here.desk / "agents.json").write_text(json.dumps({"fixer": {"git_author": "Fixer <fixer@example.org>"}}))
    model = ScriptedModel([Reply(ToolUse("Bash", {"command": SAVE})), Reply("Done.")])
    with model.serve() as url:
        here.use(url)
        runtime = here.runtime(git_committer="Fleet <fleet@example.org>")
        assert answers(
            runtime.run(WorkItem("fixer", origin.url, 7), prompt="Mend it.", options=options(), branch="fix/7")
        )
    said = git(origin.path, "log", "-1", "--format=%an <%ae> %cn <%ce> %s", "fix/7")
    assert said == "Fixer <fixer@example.org> Fleet <fleet@example.org> Mended"


@pytest.mark.slow
@pytest.mark.cli
def test_the_conversation_goes_on_when_the_branch_of_its_issue_changes(machine: MakeMachine, origin: Origin) -> None:
    here, work = machine("a"), WorkItem("fixer", origin.url, 7)
    with ScriptedModel([Reply("I shall."), Reply("Done.")]).serve() as url:
        here.use(url)
        runs = []
        for branch in ("main", "fix/7"):
            run = here.runtime().run(
                work, prompt="Mend it.", resume_prompt="Go on.", options=options(), branch=branch
            )
            assert answers(run)
            record = here.runtime().registry.get(work)
            assert record is not None
            assert record.cwd == str(run.cwd)
            runs.append(run)
    first, second = runs
    assert (second.session_id, second.resumed) == (first.session_id, True)
    assert second.cwd != first.cwd
    assert second.cwd is not None
    assert git(second.cwd, "branch", "--show-current") == "fix/7"


@pytest.mark.slow
@pytest.mark.cli
def test_two_work_items_take_turns_in_one_workdir(machine: MakeMachine, origin: Origin) -> None:
    here = machine("a")
    with ScriptedModel([Reply("One."), Reply("Two.")]).serve() as url:
        here.use(url)
        runtime = here.runtime()
        first, second = (
            runtime.run(WorkItem("fixer", origin.url, issue), prompt="Go.", options=options(), branch="main")
            for issue in (1, 2)
        )

        async def both() -> None:
            async for _ in first:
                with pytest.raises(Held, match="a run is at work for"):
                    await anext(aiter(second))
                break
            await first.aclose()

        anyio.run(both)
        again = runtime.run(WorkItem("fixer", origin.url, 2), prompt="Go.", options=options(), branch="main")
        assert answers(again)
        assert again.cwd == first.cwd


@pytest.mark.slow
@pytest.mark.cli
def test_what_a_conversation_left_is_rescued_before_another_one_begins(machine: MakeMachine, origin: Origin) -> None:
    here = machine("a")
    forgetful = ToolUse("Bash", {"command": "echo half > half.txt"})
    with ScriptedModel([Reply(forgetful), Reply("One."), Reply("Two.")]).serve() as url:
        here.use(url)
        first, second = (
            here.runtime().run(WorkItem("fixer", origin.url, issue), prompt="Go.", options=options(), branch="main")
            for issue in (1, 2)
        )
        assert answers(first)
        assert answers(second)
    (note,) = (here.state / "workdirs" / "quarantine").glob("*/NOTE.md")
    assert str(note.parent) in second.warnings[0]
    assert (note.parent / "tree" / "half.txt").read_text() == "half\n"


@pytest.mark.parametrize("wrong", ["fixer", "<a@b>", "A <a@b>\nC"])
def test_a_wrong_identity_is_refused_before_there_is_a_run(machine: MakeMachine, wrong: str) -> None:
    here = machine("a")
    here.use()
    with pytest.raises(Invalid):
        here.runtime(git_author=wrong)


def test_a_branch_without_a_repository_is_refused(machine: MakeMachine) -> None:
    here = machine("a")
    here.use()
    with pytest.raises(Invalid, match="there is a branch, and no repository"):
        here.runtime().run(WorkItem.task("t"), prompt="Go.", branch="main")


# --- Credentials ---------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "authority", "good")


@pytest.fixture
def forge(tmp_path: Path, authority: Authority) -> Iterator[Host]:
    make_bare(tmp_path / "forge" / "team" / "shop.git")
    with serve(tmp_path / "forge", authority) as host:
        host.passwords.add(TOKEN)
        yield host


@pytest.mark.slow
@pytest.mark.cli
@pytest.mark.parametrize("source", ["variable", "file", "function"])
def test_an_agent_pushes_with_a_token_that_is_nowhere_on_the_machine(
    machine: MakeMachine,
    forge: Host,
    authority: Authority,
    tmp_path: Path,
    source: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = machine("a")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "forge").write_text(TOKEN)
    monkeypatch.setenv("FORGE_TOKEN", TOKEN)
    named = {
        "variable": GitCredential(token_env="FORGE_TOKEN"),
        "file": GitCredential(token_file=str(secrets / "forge")),
    }
    model = ScriptedModel([Reply(ToolUse("Bash", {"command": SAVE})), Reply("Done.")])
    with model.serve() as url:
        here.use(url)
        settings = here.runtime(
            git_ca_file=authority.ca_file,
            git_credentials={forge.url: named[source]} if source in named else {},
        ).settings
        runtime = Runtime(settings, git_credentials={forge.url: lambda _: TOKEN} if source not in named else None)
        work = WorkItem("fixer", f"{forge.url}/team/shop.git", 7)
        assert answers(runtime.run(work, prompt="Mend it.", options=options(), branch="fix/7"))
    assert git(tmp_path / "forge" / "team" / "shop.git", "log", "-1", "--format=%an", "fix/7") == "fixer"
    seen = (here.state / "seen").read_text()
    assert "GIT_CONFIG_COUNT" in seen
    assert (TOKEN in seen) is (source != "variable")  # that one is known, and taken away
    (here.state / "seen").unlink()
    leaks = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert leaks == [secrets / "forge"]
    assert not [path for path in here.state.rglob("*") if path.is_socket() and path.parent.name != "git"]


def test_a_repository_that_wants_a_token_that_nobody_has_is_denied_before_anything_is_claimed(
    machine: MakeMachine, forge: Host, authority: Authority
) -> None:
    here = machine("a")
    here.use()
    runtime = here.runtime(git_ca_file=authority.ca_file)
    work = WorkItem("fixer", f"{forge.url}/team/shop.git", 7)
    before_s = SystemClock().elapsed()
    with pytest.raises(Denied):
        finish(runtime.run(work, prompt="Mend it.", options=options()))
    assert SystemClock().elapsed() - before_s < 30
    assert runtime.registry.get(work) is None
