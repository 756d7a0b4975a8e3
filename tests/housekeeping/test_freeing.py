"""What ends at a forge frees what it held: nothing of others, nothing unsaved, and never under a run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from everturn.errors import Denied, Invalid, Unavailable
from everturn.forges.base import Happening
from everturn.housekeeping.freeing import Freed, Freeing, Holdings, Selection
from everturn.housekeeping.removal import Fate, Removal
from everturn.model import Holder, SessionRecord, WorkItem
from everturn.registry import SqliteRegistry
from everturn.settings import inherited_environment
from everturn.workdirs.names import workdir_name
from everturn.workdirs.records import WorkdirRecord
from housekeeping.ground import Ground, as_json, freeing, issue, issue_closed

TESTS = Path(__file__).parents[1]
SHOP = "https://git.example/acme/shop.git"
SPELLINGS = (
    SHOP,
    "ssh://git@git.example/acme/shop.git",
    "git@git.example:acme/shop.git",
    "https://git.example/acme/shop",
)
FORK = "https://git.example/mallory/shop.git"


def free(ground: Ground, happening: Happening, *, dry_run: bool = False) -> Freed:
    made = freeing(ground)
    return made.free(happening, made.look(), dry_run=dry_run)


def worked(ground: Ground, work: WorkItem, branch: str | None = None) -> WorkdirRecord:
    """Have a workdir in which a run of a work item has ended."""
    workdir = ground.workdirs.open(work, branch)
    ground.session(work, workdir.path)
    workdir.close()
    return ground.record(workdir.name)


def noted(ground: Ground, work: WorkItem, branch: str | None = None) -> str:
    """Have the record of a workdir alone, and the session of a run in it: what is matched is what is noted."""
    ground.root.prepare()
    name = workdir_name(work, branch)
    record = WorkdirRecord(name, work.repo or "", work_key=work.key, agent=work.agent, branch=branch, cache="none")
    record.write(ground.root)
    ground.session(work, record.tree(ground.root))
    return name


def left(ground: Ground) -> set[str]:
    """Return the work items that have workdirs."""
    return {record.work_key for record in ground.all()}


def known(ground: Ground) -> set[str]:
    """Return the work items that have sessions."""
    return {record.work_key for record in ground.registry.records()}


def fate_of(freed: Freed, name: str) -> Fate:
    [fate] = [fate for fate in freed.fates if fate.name == name]
    return fate


def change_closed(**given: Any) -> Happening:
    return Happening("change_closed", **{"repo": SPELLINGS[:3], "number": "7", **given})


def branch_deleted(branch: str, repo: str = SHOP) -> Happening:
    return Happening("branch_deleted", (repo,), branch=branch, branch_repo=(repo,))


def ground_of(ground: Ground) -> list[str]:
    """Return the arguments of a program that works on the same ground."""
    return [str(ground.folder), str(ground.origin), str(ground.clock.now())]


@contextmanager
def running(ground: Ground, branch: str = "") -> Iterator[subprocess.Popen[str]]:
    """Have another process be at work on the issue."""
    child = subprocess.Popen(
        [sys.executable, "-m", "housekeeping.at_work", *ground_of(ground), branch],
        env={**inherited_environment(), "PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "at work\n"
        yield child
        child.communicate(timeout=30)  # which ends it
    finally:
        child.kill()
        child.wait(30)


# --- Issues -------------------------------------------------------------------------------------------------------


def test_a_closed_issue_frees_its_workdirs_and_ends_its_sessions_and_nothing_else(ground: Ground) -> None:
    one, on_branch = worked(ground, issue(ground)), worked(ground, issue(ground), "fix")
    reviewed = worked(ground, issue(ground, agent="reviewer"))
    others = [issue(ground, 8), issue(ground, repository="tools"), ground.work("seven")]
    for work in others:
        worked(ground, work)
    freed = free(ground, issue_closed(ground))
    assert {fate.name for fate in freed.gone} == {
        one.name,
        on_branch.name,
        reviewed.name,
        issue(ground).key,
        issue(ground, agent="reviewer").key,
    }
    assert fate_of(freed, one.name).action == "removed"
    assert fate_of(freed, one.name).reasons == ("its issue was closed",)
    assert fate_of(freed, issue(ground).key).action == "dropped"
    assert not freed.waiting
    assert freed.freed_bytes > 0
    assert left(ground) == known(ground) == {work.key for work in others}
    assert len(ground.names("trees")) == 3


def test_a_second_time_there_is_nothing_to_free(ground: Ground) -> None:
    worked(ground, issue(ground))
    made = freeing(ground)
    before = made.look()
    assert len(made.free(issue_closed(ground), before).gone) == 2
    assert made.free(issue_closed(ground), made.look()) == Freed()
    assert made.free(issue_closed(ground), before) == Freed()  # by what there was before


def test_a_session_whose_workdir_went_or_is_elsewhere_ends_as_well(ground: Ground) -> None:
    ground.session(issue(ground), ground.folder / "gone")
    assert fate_of(free(ground, issue_closed(ground)), issue(ground).key).reasons == ("its issue was closed",)
    assert known(ground) == set()


def test_a_workdir_without_a_session_is_freed_as_well(ground: Ground) -> None:
    workdir = worked(ground, issue(ground))
    ground.registry.drop(issue(ground), ground.registry.records()[0].session_id, "too old")
    assert [fate.name for fate in free(ground, issue_closed(ground)).gone] == [workdir.name]


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_a_repository_is_the_same_however_it_is_spelled(ground: Ground, spelled: str) -> None:
    noted(ground, WorkItem("fixer", spelled, 7))
    happening = Happening("issue_closed", ("https://GIT.example:443/Acme/shop",), "7")
    assert len(free(ground, happening).gone) == 2
    assert left(ground) == known(ground) == set()


def test_a_workdir_in_which_the_session_of_an_open_issue_can_be_resumed_stays(ground: Ground) -> None:
    first, second = issue(ground, 7), issue(ground, 8)
    workdir = worked(ground, second, "fix")
    worked(ground, first, "fix")
    freed = free(ground, issue_closed(ground, 7))
    assert fate_of(freed, workdir.name).reasons == (f"the session of {second.key} can still be resumed in it",)
    assert known(ground) == {second.key}  # what was closed has ended all the same
    assert ground.names("trees") == [workdir.name]
    assert not freed.waiting
    worked(ground, second, "fix")
    freed = free(ground, issue_closed(ground, 8))
    assert {fate.name for fate in freed.gone} == {second.key, workdir.name}


# --- Branches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelled", ["fix/a", "refs/heads/fix/a"])
def test_a_deleted_branch_frees_the_workdirs_that_show_it_however_it_was_spelled(
    ground: Ground, spelled: str
) -> None:
    task = WorkItem.task("nightly", agent="fixer", repo=SPELLINGS[1])
    name = noted(ground, task, spelled)
    other = noted(ground, WorkItem.task("other", agent="fixer", repo=SHOP), "fix/ab")
    freed = free(ground, branch_deleted("fix/a"))
    assert [(fate.kind, fate.name, fate.reasons) for fate in freed.fates] == [
        ("session", task.key, ("its branch was deleted",)),
        ("workdir", name, ("its branch was deleted",)),
    ]
    assert [record.name for record in ground.all()] == [other]


def test_a_branch_of_the_same_name_in_a_fork_is_another_one(ground: Ground) -> None:
    ours = noted(ground, WorkItem.task("ours", agent="a", repo=SHOP), "fix")
    forks = noted(ground, WorkItem.task("forks", agent="a", repo=FORK), "fix")
    free(ground, branch_deleted("fix", FORK))
    assert [record.name for record in ground.all()] == [ours]
    forks = noted(ground, WorkItem.task("forks", agent="a", repo=FORK), "fix")
    free(ground, branch_deleted("fix", SHOP))
    assert [record.name for record in ground.all()] == [forks]


@pytest.mark.parametrize(
    "branch",
    [
        None,
        "refs/tags/main",
        "refs/remotes/origin/main",
        "origin/main",
        "Main",
        "0" * 40,
        "main ",
        "refs/heads/refs/heads/main",
    ],
)
def test_what_is_not_that_branch_stays(ground: Ground, branch: str | None) -> None:
    """The default branch may be another one tomorrow, and a work item on it has a workdir of its own."""
    noted_branch = WorkdirRecord("a-0", SHOP, work_key="task:a", branch=branch, cache="none")
    ground.root.prepare()
    noted_branch.write(ground.root)
    assert free(ground, branch_deleted("main")) == Freed()


@pytest.mark.parametrize(
    "branch",
    [
        "",
        "*",
        "../../etc",
        "/",
        "ma*",
        "main/..",
        "main\0",
        "refs/heads/main",
        "-main",
        "main\n",
        "\udcff",
        "m" * 100_000,
    ],
)
def test_names_of_strangers_are_data(ground: Ground, branch: str) -> None:
    noted(ground, WorkItem("fixer", SHOP, 7), "main")
    happening = Happening("change_closed", (SHOP, branch), branch, branch, (SHOP, branch), ("refs/heads/*",))
    assert free(ground, happening) == Freed()
    assert len(left(ground)) == len(known(ground)) == 1


def test_all_sessions_in_the_workdir_of_a_deleted_branch_end(ground: Ground) -> None:
    first, second = issue(ground, 7), issue(ground, 8)
    worked(ground, first, "fix")
    workdir = worked(ground, second, "fix")
    freed = free(ground, branch_deleted("fix", str(ground.remote())))
    assert {fate.name for fate in freed.gone} == {first.key, second.key, workdir.name}
    assert known(ground) == set()


def test_a_session_that_has_moved_to_another_workdir_goes_on(ground: Ground) -> None:
    old = worked(ground, issue(ground), "old")
    new = worked(ground, issue(ground), "new")
    freed = free(ground, branch_deleted("old", str(ground.remote())))
    assert [fate.name for fate in freed.gone] == [old.name]
    assert ground.names("trees") == [new.name]
    assert known(ground) == {issue(ground).key}


def test_the_session_in_the_same_workdir_of_another_machine_ends_with_the_branch(ground: Ground) -> None:
    mine, theirs = WorkItem.task("mine", agent="a", repo=SHOP), WorkItem.task("theirs", agent="a", repo=SHOP)
    name = noted(ground, mine, "fix")
    ground.session(theirs, Path("/srv/elsewhere/trees") / name / "lib")
    ground.session(ground.work("near"), Path("/srv/elsewhere/trees") / f"{name}2")
    free(ground, branch_deleted("fix"))
    assert known(ground) == {ground.work("near").key}


# --- Changes ------------------------------------------------------------------------------------------------------


def test_a_closed_change_frees_what_is_on_its_branch_where_that_is(ground: Ground) -> None:
    fork = noted(ground, WorkItem.task("fork", agent="a", repo=FORK), "fix")
    ours = noted(ground, WorkItem.task("ours", agent="a", repo=SHOP), "fix")
    free(ground, change_closed(branch="fix", branch_repo=(FORK, "git@git.example:mallory/shop.git")))
    assert [record.name for record in ground.all()] == [ours]
    assert fork not in {record.name for record in ground.all()}


def test_a_closed_change_frees_what_shows_its_refs_and_works_on_its_number(ground: Ground) -> None:
    noted(ground, WorkItem.task("looks", agent="a", repo=SHOP), "refs/pull/7/head")
    noted(ground, WorkItem("reviewer", SHOP, 7))
    kept = noted(ground, WorkItem.task("next", agent="a", repo=SHOP), "refs/pull/70/head")
    elsewhere = noted(ground, WorkItem.task("looks", agent="a", repo=FORK), "refs/pull/7/head")
    freed = free(ground, change_closed(refs=("refs/pull/7/head", "refs/pull/7/merge")))
    assert {fate.reasons for fate in freed.fates} == {("its change was closed",)}
    assert {record.name for record in ground.all()} == {kept, elsewhere}


def test_merge_requests_and_issues_of_one_number_are_two_things_where_they_are_counted_apart(ground: Ground) -> None:
    for number in ("7", "!7"):
        noted(ground, WorkItem("fixer", SHOP, number))
    free(ground, change_closed(number="!7"))
    assert left(ground) == {WorkItem("fixer", SHOP, "7").key}


def test_a_change_whose_fork_is_gone_frees_no_branch(ground: Ground) -> None:
    noted(ground, WorkItem.task("ours", agent="a", repo=SHOP), "fix")
    assert free(ground, change_closed(branch="fix", branch_repo=())) == Freed()


# --- What is unsaved ----------------------------------------------------------------------------------------------


def test_what_is_unsaved_lies_in_quarantine_afterwards(ground: Ground) -> None:
    workdir = worked(ground, issue(ground))
    (ground.tree(workdir) / "new.txt").write_text("mine")
    fate = fate_of(free(ground, issue_closed(ground)), workdir.name)
    assert fate.action == "quarantined"
    assert (Path(fate.path or "") / "tree" / "new.txt").read_text() == "mine"
    assert known(ground) == set()


@pytest.mark.slow
def test_what_is_unsaved_is_pushed_where_that_is_wanted(ground: Ground) -> None:
    workdir = worked(ground, issue(ground))
    (ground.tree(workdir) / "new.txt").write_text("mine")
    made = freeing(ground, "push")
    assert fate_of(made.free(issue_closed(ground), made.look()), workdir.name).action == "pushed"
    assert "everturn/rescue" in ground.git.run(["for-each-ref"], ground.remote())


@pytest.mark.slow
def test_what_was_pushed_to_a_branch_that_is_gone_is_kept_in_the_cache(ground: Ground) -> None:
    workdir = worked(ground, issue(ground), "fix")
    (ground.tree(workdir) / "new.txt").write_text("mine")
    ground.agent(workdir, "add", ".")
    ground.agent(workdir, "commit", "--quiet", "-m", "Two")
    ground.agent(workdir, "push", "--quiet", "origin", "HEAD:refs/heads/fix")
    commit = ground.agent(workdir, "rev-parse", "HEAD")
    ground.git.run(["update-ref", "-d", "refs/heads/fix"], ground.remote())
    fate = fate_of(free(ground, branch_deleted("fix", str(ground.remote()))), workdir.name)
    assert fate.action == "removed"
    repository = ground.root.caches / workdir.cache / "repo.git"
    kept = ground.git.run(["for-each-ref", "--format=%(objectname)", "refs/everturn/kept"], repository)
    assert kept.split() == [commit]


def test_what_cannot_be_rescued_is_kept_and_it_is_said_why(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    workdir = worked(ground, issue(ground))
    (ground.tree(workdir) / "new.txt").write_text("mine")

    def full(*_: object) -> str:
        raise Unavailable("the disk is full", hint="make room")

    monkeypatch.setattr("everturn.workdirs.rescuer.quarantine", full)
    freed = free(ground, issue_closed(ground))
    assert fate_of(freed, workdir.name).action == "kept"
    assert "it cannot be kept: the disk is full" in fate_of(freed, workdir.name).reasons
    assert (ground.tree(workdir) / "new.txt").exists()
    assert not freed.waiting


# --- Runs ---------------------------------------------------------------------------------------------------------


def test_what_somebody_holds_is_waited_for_and_not_touched(ground: Ground) -> None:
    workdir = worked(ground, issue(ground))
    claim = ground.registry.claim(issue(ground), Holder("w9", "run-9", "another-machine"), ttl_s=60)
    before = ground.registry.records()
    for _ in range(2):
        freed = free(ground, issue_closed(ground))
        assert freed.gone == ()
        assert [each.split(" until ")[0] for each in freed.waiting] == [
            f"{issue(ground).key} is held by w9 (run run-9)"
        ]
    assert ground.registry.records() == before
    assert ground.names("trees") == [workdir.name]
    ground.registry.renew(claim, 60)
    ground.registry.release(claim)
    freed = free(ground, issue_closed(ground))
    assert {fate.name for fate in freed.gone} == {workdir.name, issue(ground).key}
    assert not freed.waiting


def test_a_worker_that_died_is_waited_for_until_its_claim_is_over(ground: Ground) -> None:
    worked(ground, issue(ground))
    ground.registry.claim(issue(ground), Holder("w9", "run-9"), ttl_s=60)
    assert free(ground, issue_closed(ground)).waiting
    ground.clock.advance(61)
    assert len(free(ground, issue_closed(ground)).gone) == 2


def test_a_clock_that_was_set_back_keeps_nobody_waiting(ground: Ground) -> None:
    worked(ground, issue(ground))
    ground.registry.claim(issue(ground), Holder("w9", "run-9"), ttl_s=60)
    ground.clock.jump(-86_400)
    assert free(ground, issue_closed(ground)).waiting
    ground.clock.advance(61)
    assert len(free(ground, issue_closed(ground)).gone) == 2


@pytest.mark.slow
def test_a_run_of_another_process_is_waited_for_and_all_is_freed_when_it_has_ended(ground: Ground) -> None:
    with running(ground) as child:
        freed = free(ground, issue_closed(ground))
        assert freed.waiting
        assert freed.gone == ()
        assert child.poll() is None
    assert left(ground) == known(ground) == {issue(ground).key}
    assert len(free(ground, issue_closed(ground)).gone) == 2


@pytest.mark.slow
def test_a_run_that_holds_a_workdir_without_a_claim_is_waited_for_and_keeps_its_session(ground: Ground) -> None:
    claim = ground.registry.claim(issue(ground), Holder("w1", "run-1"), ttl_s=60)
    with running(ground):
        ground.registry.release(claim)
        [name] = ground.names("trees")
        begun = time.monotonic()
        freed = free(ground, issue_closed(ground))
        assert time.monotonic() - begun < 1  # nobody is waited for: others are to be served
        assert freed.waiting == (f"{name}: a run is at work in it",)
        assert freed.gone == ()
        assert known(ground) == {issue(ground).key}
    assert len(free(ground, issue_closed(ground)).gone) == 2


@pytest.mark.slow
def test_a_run_that_was_killed_is_not_waited_for_longer_than_its_claim_lasts(ground: Ground) -> None:
    with running(ground) as child:
        child.kill()
    assert free(ground, issue_closed(ground)).waiting
    ground.clock.advance(3601)
    assert len(free(ground, issue_closed(ground)).gone) == 2


@pytest.mark.slow
def test_a_process_in_a_workdir_is_waited_for(ground: Ground) -> None:
    workdir = worked(ground, issue(ground))
    child = subprocess.Popen([sys.executable, "-c", "input()"], cwd=ground.tree(workdir), stdin=subprocess.PIPE)
    try:
        freed = free(ground, issue_closed(ground))
        assert f"({child.pid})" in freed.waiting[0]
        assert ground.names("trees") == [workdir.name]
        assert freed.gone == ()
        assert known(ground) == {issue(ground).key}
    finally:
        child.communicate(b"\n", timeout=30)
    assert free(ground, issue_closed(ground)).gone[-1].name == workdir.name


class Busy(SqliteRegistry):
    """A registry in which somebody is a moment faster than whoever frees."""

    def __init__(self, ground: Ground, when: str) -> None:
        super().__init__(ground.folder / "registry.db", clock=ground.clock)
        self._when = when
        self.claims: list[Any] = []

    def _begin(self, when: str) -> None:
        if when == self._when and not self.claims:
            key = self.records()[0].work_key
            agent, _, repo = key.rpartition("#")[0].partition("@")
            self.claims.append(self.claim(WorkItem(agent, repo, 7), Holder("w9", "run-9"), ttl_s=60))

    def get(self, work: WorkItem | str) -> SessionRecord | None:
        self._begin("before the look")
        found = super().get(work)
        self._begin("after the look")
        return found

    def drop(self, *arguments: Any, **more: Any) -> bool:
        dropped = super().drop(*arguments, **more)
        if self._when == "after the drop" and not self.claims:
            self.claims.append(self.claim(WorkItem("fixer", "/r", 7), Holder("w9", "run-9"), ttl_s=60))
        return dropped


@pytest.mark.parametrize("when", ["before the look", "after the look"])
def test_a_run_that_begins_meanwhile_keeps_its_session_and_its_workdir(ground: Ground, when: str) -> None:
    workdir = worked(ground, issue(ground))
    [before] = ground.registry.records()
    ground.registry = registry = Busy(ground, when)
    freed = free(ground, issue_closed(ground))
    assert freed.waiting
    assert freed.gone == ()
    assert ground.names("trees") == [workdir.name]
    [claim] = registry.claims
    assert (claim.session_id, claim.is_new) == (before.session_id, False)
    registry.renew(claim, 60)


def test_a_run_that_begins_between_two_workdirs_of_its_issue_keeps_the_second(ground: Ground) -> None:
    work = WorkItem("fixer", "/r", 7)
    names = sorted([noted(ground, work), noted(ground, work, "fix")])
    ground.registry = registry = Busy(ground, "after the drop")
    freed = free(ground, Happening("issue_closed", ("/r",), "7"))
    assert freed.waiting
    assert [record.name for record in ground.all()] == names[1:]
    [claim] = registry.claims
    assert claim.is_new
    registry.renew(claim, 60)


def test_whoever_frees_at_the_same_time_does_no_harm(ground: Ground) -> None:
    worked(ground, issue(ground))
    ready = threading.Barrier(4)

    def attempt(_: int) -> Freed:
        made = freeing(ground)
        holdings = made.look()
        ready.wait(30)
        return made.free(issue_closed(ground), holdings)

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(attempt, range(4)))
    assert sorted(fate.kind for freed in done for fate in freed.gone) == ["session", "workdir"]
    assert left(ground) == known(ground) == set()


@pytest.mark.slow
@pytest.mark.parametrize("unsaved", [False, True])
def test_whoever_is_killed_in_between_leaves_what_the_next_attempt_finds(
    ground: Ground, tmp_path: Path, unsaved: bool
) -> None:
    for change in range(1, 20):
        again = Ground(tmp_path / f"round-{change}", ground.origin)
        again.folder.mkdir()
        workdir = worked(again, issue(again))
        if unsaved:
            (again.tree(workdir) / "new.txt").write_text("mine")
        ended = freed_until(again, change)
        if ended is not None:
            break
        if not again.names("records"):  # nothing says any more what the workdir was about
            assert known(again) == set()
        free(again, issue_closed(again))
        assert left(again) == known(again) == set()
        assert again.names("trees") == again.names("records") == []
        kept = [*(again.root.path / "quarantine").glob("*/tree/new.txt")]
        assert len(kept) == unsaved
        shutil.rmtree(again.folder)
    assert ended is not None
    assert ended >= 3


def freed_until(ground: Ground, change: int) -> int | None:
    """Free in another process. Return how many changes it made, or `None` if it has died."""
    done = subprocess.run(
        [sys.executable, "-m", "housekeeping.free_once", *ground_of(ground), str(change)],
        env={**inherited_environment(), "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in (0, -9), done.stderr
    return int(done.stdout) if done.returncode == 0 else None


# --- Looking ------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_done_and_does_nothing(ground: Ground) -> None:
    saved, unsaved = worked(ground, issue(ground)), worked(ground, issue(ground), "fix")
    held = worked(ground, issue(ground, agent="reviewer"))
    (ground.tree(unsaved) / "new.txt").write_text("mine")
    ground.registry.claim(issue(ground, agent="reviewer"), Holder("w9"), ttl_s=60)
    before = ground.registry.records()
    freed = free(ground, issue_closed(ground), dry_run=True)
    assert {fate.name: fate.action for fate in freed.fates} == {
        saved.name: "removed",
        unsaved.name: "rescued",
        held.name: "kept",
        issue(ground).key: "dropped",
    }
    assert len(freed.waiting) == 1
    assert freed.dry_run
    assert len(ground.names("trees")) == 3
    assert ground.registry.records() == before
    assert as_json(freed.facts()) == freed.facts()
    assert f"workdir {saved.name} would be removed: its issue was closed" in freed.details()


def test_a_registry_that_does_not_answer_is_no_reason_to_free_anything(ground: Ground) -> None:
    class Away(SqliteRegistry):
        def get(self, work: WorkItem | str) -> SessionRecord | None:
            raise Unavailable("it does not answer", hint="wait")

    workdir = worked(ground, issue(ground))
    made = freeing(ground)
    holdings = made.look()
    ground.registry = Away(ground.folder / "registry.db", clock=ground.clock)
    with pytest.raises(Unavailable):
        freeing(ground).free(issue_closed(ground), holdings)
    with pytest.raises(Unavailable):
        freeing(ground).reset(Selection(every=True))
    assert ground.names("trees") == [workdir.name]


def test_where_there_are_no_workdirs_sessions_end(ground: Ground) -> None:
    ground.session(issue(ground), ground.folder)
    assert len(free(ground, issue_closed(ground)).gone) == 1
    assert not ground.root.path.exists()


@pytest.mark.slow
def test_thousands_of_happenings_are_matched_in_seconds(ground: Ground) -> None:
    ground.root.prepare()
    for number in range(1000):
        repo = f"https://git.example/acme/repo-{number % 50}.git"
        work = WorkItem("fixer", repo, number)
        name = workdir_name(work, f"fix/{number}")
        WorkdirRecord(name, repo, work_key=work.key, agent="fixer", branch=f"fix/{number}").write(ground.root)
    sessions = [
        SessionRecord(
            f"fixer@https://git.example/acme/repo-{number % 50}#{number}",
            f"session-{number}",
            1,
            "w1",
            "file:///s",
            f"/srv/workdirs/trees/fixer-{number:012x}",
            1.0,
            2.0,
        )
        for number in range(10_000)
    ]
    begun = time.process_time()
    holdings = Holdings.of(WorkdirRecord.all(ground.root), sessions)
    looked_s = time.process_time() - begun
    made = freeing(ground)
    begun = time.process_time()
    for number in range(15_000):
        name = f"git.example/other/repo-{number % 500}"
        happening = Happening(
            "change_closed",
            (f"https://{name}.git", f"ssh://git@{name}.git", f"https://{name}"),
            str(number),
            f"fix/{number}",
            (f"https://{name}.git", f"ssh://git@{name}.git", f"https://{name}"),
            (f"refs/pull/{number}/head",),
        )
        assert made.free(happening, holdings) == Freed()
    matched_s = time.process_time() - begun
    assert looked_s < 1
    assert matched_s < 3


# --- Resets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "gone"),
    [
        ({"every": True}, {"fixer7", "fixer8", "reviewer7", "task"}),
        ({"agent": "fixer"}, {"fixer7", "fixer8", "task"}),
        ({"work": "fixer@https://git.example/acme/shop#7"}, {"fixer7"}),
        ({"repo": "git@git.example:acme/shop"}, {"fixer7", "reviewer7", "task"}),
        ({"repo": SHOP, "agent": "reviewer"}, {"reviewer7"}),
        ({"repo": FORK, "agent": "reviewer"}, set()),
        ({"agent": "nobody"}, set()),
        ({"work": "task:nightly", "repo": SHOP}, {"task"}),
        ({"work": "task:nightly", "repo": FORK}, set()),
    ],
)
def test_a_reset_takes_workdirs_and_sessions_that_are_selected(
    ground: Ground, selection: dict[str, Any], gone: set[str]
) -> None:
    works = {
        "fixer7": WorkItem("fixer", SHOP, 7),
        "fixer8": WorkItem("fixer", FORK, 8),
        "reviewer7": WorkItem("reviewer", SHOP, 7),
        "task": WorkItem.task("nightly", agent="fixer", repo=SHOP),
    }
    for work in works.values():
        noted(ground, work)
    made = freeing(ground)
    assert {fate.name for fate in made.reset(Selection(**selection), dry_run=True).gone} >= {
        works[name].key for name in gone
    }
    assert len(left(ground)) == len(known(ground)) == 4
    made.reset(Selection(**selection))
    assert left(ground) == known(ground) == {work.key for name, work in works.items() if name not in gone}


def test_a_reset_rescues_what_is_unsaved_unless_it_is_forced(ground: Ground) -> None:
    for force in (False, True):
        workdir = worked(ground, issue(ground))
        (ground.tree(workdir) / "new.txt").write_text("mine")
        freed = freeing(ground).reset(Selection(every=True), force=force)
        assert fate_of(freed, workdir.name).action == ("removed" if force else "quarantined")
        assert fate_of(freed, issue(ground).key).reasons == ("it was reset",)
    assert len(ground.names("quarantine")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("force", [False, True])
def test_no_reset_touches_a_run(ground: Ground, force: bool) -> None:
    with running(ground):
        freed = freeing(ground).reset(Selection(every=True), force=force)
        assert freed.gone == ()
        assert {fate.action for fate in freed.fates} == {"kept"}
        assert {reason for fate in freed.fates for reason in fate.reasons} >= {"a run is at work in it"}
        assert freed.waiting == ()  # nobody tries again
    assert len(freeing(ground).reset(Selection(every=True), force=force).gone) == 2


def test_a_reset_keeps_what_a_run_holds_that_has_not_come_to_its_workdir_yet(ground: Ground) -> None:
    workdir = worked(ground, issue(ground))
    (ground.tree(workdir) / "new.txt").write_text("mine")
    claim = ground.registry.claim(issue(ground), Holder("w9", "run-9"), ttl_s=60)
    for dry_run in (True, False):
        freed = freeing(ground).reset(Selection(agent="fixer"), dry_run=dry_run, force=True)
        assert freed.gone == ()
        assert [fate.action for fate in freed.fates] == ["kept"]
    assert (ground.tree(workdir) / "new.txt").exists()
    ground.registry.renew(claim, 60)


def test_a_reset_ends_sessions_that_have_no_workdir_here(ground: Ground) -> None:
    ground.session(issue(ground), Path("/srv/elsewhere"))
    held = ground.registry.claim(issue(ground, 8), Holder("w9"), ttl_s=60)
    freed = freeing(ground).reset(Selection(every=True))
    assert {fate.name: fate.action for fate in freed.fates} == {
        issue(ground).key: "dropped",
        issue(ground, 8).key: "kept",
    }
    ground.registry.renew(held, 60)


class Refusing(Removal):
    """What cannot remove one of the workdirs."""

    refused = ""

    def remove(self, name: str, *arguments: Any, **more: Any) -> Fate:
        if name == self.refused:
            raise Denied("its lock cannot be written", hint="look at the permissions")
        return super().remove(name, *arguments, **more)


def test_what_cannot_be_removed_keeps_no_other_workdir_from_being_reset(ground: Ground) -> None:
    first, second = sorted([noted(ground, issue(ground, 7)), noted(ground, issue(ground, 8))])
    removal = Refusing(ground.root, ground.git, rescuer=ground.rescuer("quarantine"), metrics=ground.metrics)
    removal.refused = first
    made = Freeing(ground.root, removal, ground.registry, clock=ground.clock)
    freed = made.reset(Selection(every=True))
    assert fate_of(freed, first).reasons == ("its lock cannot be written",)
    assert fate_of(freed, second).action == "removed"


def test_what_cannot_be_removed_when_its_issue_is_closed_is_tried_again(ground: Ground) -> None:
    name = noted(ground, issue(ground))
    removal = Refusing(ground.root, ground.git, rescuer=ground.rescuer("quarantine"), metrics=ground.metrics)
    removal.refused = name
    made = Freeing(ground.root, removal, ground.registry, clock=ground.clock)
    with pytest.raises(Denied):
        made.free(issue_closed(ground), made.look())
    removal.refused = ""
    assert len(made.free(issue_closed(ground), made.look()).gone) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "nothing is selected"),
        ({"every": True, "agent": "fixer"}, "both all and some"),
        ({"work": ""}, "the work is empty"),
        ({"agent": " "}, "the agent is empty"),
        ({"repo": "", "agent": "fixer"}, "the repo is empty"),
        ({"repo": "https://me:secret@git.example/shop"}, "has a password"),
        ({"work": "fixer@https://me:secret@git.example/shop#7"}, "has a password"),
    ],
)
def test_a_selection_says_what_is_meant(given: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        Selection(**given)
