"""Resets: what an admin frees by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from everturn.errors import Denied, Invalid
from everturn.housekeeping.freeing import Freeing, Selection
from everturn.housekeeping.removal import Fate, Removal
from everturn.model import Holder, WorkItem
from housekeeping.freed import (
    FORK,
    SHOP,
    fate_of,
    known,
    left,
    noted,
    running,
    worked,
)
from housekeeping.ground import Ground, freeing, issue, issue_closed


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
