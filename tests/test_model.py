"""Work items: what identifies them, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everturn.errors import Invalid
from everturn.model import WorkItem


@pytest.mark.parametrize(
    ("work", "key"),
    [
        (WorkItem("fixer", "https://example.org/shop.git", 12), "fixer@https://example.org/shop#12"),
        (WorkItem("fixer", "git@example.org:shop#1", "A-7"), "fixer@git@example.org:shop#1#A-7"),
        (WorkItem.task("nightly"), "task:nightly"),
        (WorkItem.task("nightly", agent="fixer", repo="/srv/shop"), "task:nightly"),
    ],
)
def test_a_work_item_has_one_key(work: WorkItem, key: str) -> None:
    assert work.key == key


def test_an_issue_is_the_same_as_text_and_as_a_number() -> None:
    assert WorkItem("fixer", "shop", 12).key == WorkItem("fixer", "shop", "12").key


def test_a_task_keeps_its_agent_and_its_repository() -> None:
    work = WorkItem.task("nightly", agent="fixer", repo="/srv/shop")
    assert (work.task_id, work.agent, work.repo, work.issue) == ("nightly", "fixer", "/srv/shop", None)


def test_work_items_are_values() -> None:
    assert WorkItem("a", "r", 1) == WorkItem("a", "r", 1)
    assert len({WorkItem("a", "r", 1), WorkItem("a", "r", 1), WorkItem.task("t")}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        WorkItem.task("t").task_id = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no issue and no task"),
        ({"agent": "fixer", "repo": "shop"}, "no issue and no task"),
        ({"agent": "fixer", "repo": "shop", "issue": ""}, "no issue and no task"),
        ({"agent": "fixer", "repo": "shop", "issue": "  "}, "no issue and no task"),
        ({"agent": "fixer", "issue": 1}, "no repository"),
        ({"agent": "fixer", "repo": "", "issue": 1}, "no repository"),
        ({"agent": "fixer", "repo": " \t", "issue": 1}, "no repository"),
        ({"repo": "shop", "issue": 1}, "no agent"),
        ({"agent": "", "repo": "shop", "issue": 1}, "no agent"),
        ({"agent": "fix@er", "repo": "shop", "issue": 1}, "'@' or ':'"),
        ({"agent": "task:x", "repo": "shop", "issue": 1}, "'@' or ':'"),
        ({"agent": "fixer", "repo": "shop", "issue": "#1"}, "'#' in it"),
        ({"task_id": ""}, "task id is empty"),
        ({"task_id": " \n"}, "task id is empty"),
        ({"task_id": "../x"}, "climb out"),
        ({"task_id": "a/.."}, "climb out"),
        ({"task_id": "a\\..\\b"}, "climb out"),
        ({"task_id": "a\nb"}, "control character"),
        ({"task_id": "a\ud800"}, "not valid Unicode"),
        ({"agent": "..", "repo": "shop", "issue": 1}, "climb out"),
        ({"agent": "fixer", "repo": "shop", "issue": "../1"}, "climb out"),
        ({"agent": "fixer", "repo": "sh\0op", "issue": 1}, "cannot be printed"),
        ({"agent": "fixer", "repo": "https://me:secret@example.org/shop", "issue": 1}, "has a password"),
        ({"agent": "fixer", "repo": "https://[x", "issue": 1}, "URL is wrong"),
        ({"agent": "fixer", "repo": " /", "issue": 1}, "has no name"),
        ({"agent": "fixer", "repo": " .git", "issue": 1}, "has no name"),
        ({"task_id": "t", "repo": "https://me:secret@example.org/shop"}, "has a password"),
        ({"task_id": "t", "issue": 1}, "both a task and an issue"),
    ],
)
def test_what_is_no_work_item_is_refused_with_a_hint(given: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid) as caught:
        WorkItem(**given)
    assert said in caught.value.message
    assert "secret" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("issue", [0, "0"])
def test_issue_zero_is_an_issue(issue: int | str) -> None:
    assert WorkItem("fixer", "shop", issue).key == "fixer@shop#0"


# Few letters, the separators among them, so that keys that could be read in two ways do turn up.
PIECES = st.text("ab@:#/ ", max_size=6)


def work_item(agent: str, repo: str, issue: str, task_id: str | None) -> WorkItem | None:
    try:
        return WorkItem(agent, repo, issue) if task_id is None else WorkItem.task(task_id)
    except Invalid:
        return None


WORK_ITEMS = st.builds(work_item, PIECES, PIECES, PIECES, st.none() | PIECES).filter(bool)


@pytest.mark.slow
@given(WORK_ITEMS, WORK_ITEMS)
def test_different_work_items_have_different_keys(first: WorkItem, second: WorkItem) -> None:
    same = first == second or (first.agent, first.issue) == (second.agent, second.issue)
    assert same or first.key != second.key


@pytest.mark.parametrize(
    "spelled", ["https://Example.org/shop", "https://example.org/shop/", "https://example.org/shop.git/"]
)
def test_a_key_does_not_depend_on_how_a_url_is_spelled(spelled: str) -> None:
    assert WorkItem("fixer", spelled, 1).key == "fixer@https://example.org/shop#1"


@pytest.mark.slow
@given(WORK_ITEMS)
def test_a_key_can_be_read_back(work: WorkItem) -> None:
    if work.key.startswith("task:"):
        assert work == WorkItem.task(work.key.removeprefix("task:"))
    else:
        agent, _, rest = work.key.partition("@")
        repo, _, issue = rest.rpartition("#")
        assert work.key == WorkItem(agent, repo, issue).key
