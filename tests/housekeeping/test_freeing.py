"""What ends at a forge frees what it held: nothing of others, nothing unsaved, and never under a run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from everturn.errors import Unavailable
from everturn.forges.base import Happening
from everturn.housekeeping.freeing import Freed, Holdings, Selection
from everturn.model import Holder, SessionRecord, WorkItem
from everturn.registry import SqliteRegistry
from everturn.workdirs.names import workdir_name
from everturn.workdirs.records import WorkdirRecord
from housekeeping.freed import (
    FORK,
    SHOP,
    SPELLINGS,
    fate_of,
    free,
    known,
    left,
    noted,
    worked,
)
from housekeeping.ground import Ground, as_json, freeing, issue, issue_closed


def change_closed(**given: Any) -> Happening:
    return Happening("change_closed", **{"repo": SPELLINGS[:3], "number": "7", **given})


def branch_deleted(branch: str, repo: str = SHOP) -> Happening:
    return Happening("branch_deleted", (repo,), branch=branch, branch_repo=(repo,))


# --- Issues -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
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


@pytest.mark.slow
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
