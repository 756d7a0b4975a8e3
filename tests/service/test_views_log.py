"""The log: webhooks, admin requests and sweeps, merged by time, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from everturn.clock import ManualClock
from everturn.errors import Invalid
from everturn.logbook.logbook import Logbook
from everturn.service.views.log import page, title_of


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def logbook(tmp_path: Path, clock: ManualClock) -> Iterator[Logbook]:
    logbook = Logbook(tmp_path / "logbook.db", clock=clock)
    for number in range(7):
        logbook.deliveries.put("gitlab", f"d{number}", "Push Hook", None, "it frees nothing").result(10)
        clock.advance(1)
        if number % 2:
            act = logbook.acts.add("127.0.0.1", "reset", {"agent": "fixer", "work": None, "dry_run": False}).result(
                10
            )
            logbook.acts.end(act, "done", ("2 workdirs were removed",)).result(10)
            clock.advance(1)
        if number % 3 == 0:
            sweep = logbook.sweeps.begin("daily").result(10)
            logbook.sweeps.end(sweep, "done", {"removed": 3, "freed_bytes": 12345}).result(10)
            clock.advance(1)
    yield logbook
    logbook.close()


def test_all_of_it_is_merged_by_time_and_no_page_leaves_anything_out(logbook: Logbook) -> None:
    seen = []
    before = None
    while True:
        found = page(logbook, None, 4, before)
        seen += found.entries
        before = found.older
        if before is None:
            break
    assert [each.at for each in seen] == sorted((each.at for each in seen), reverse=True)
    assert len({(each.kind, each.number) for each in seen}) == len(seen) == 7 + 3 + 3


def test_what_comes_in_between_two_pages_moves_nothing(logbook: Logbook, clock: ManualClock) -> None:
    whole = page(logbook, None, 50, None).entries
    first = page(logbook, None, 5, None)
    clock.advance(1)
    logbook.deliveries.put("gitlab", "new", "Push Hook", None, "it frees nothing").result(10)
    second = page(logbook, None, 50, first.older)
    assert first.entries + second.entries == whole


def test_one_kind_alone_can_be_asked_for(logbook: Logbook) -> None:
    found = page(logbook, "sweep", 2, None)
    assert [each.kind for each in found.entries] == ["sweep", "sweep"]
    last = page(logbook, "sweep", 2, found.older)
    assert (len(last.entries), last.older) == (1, None)


def test_each_kind_is_said_in_words(logbook: Logbook) -> None:
    by_kind = {each.kind: each for each in page(logbook, None, 50, None).entries}
    act, sweep, webhook = by_kind["admin"], by_kind["sweep"], by_kind["webhook"]
    assert (act.title, act.state, act.details) == ("reset: agent fixer", "done", ("2 workdirs were removed",))
    assert (sweep.title, sweep.source) == ("sweep, the daily one", "daily")
    assert sweep.details == ("removed: 3", "freed bytes: 12,345")
    assert (webhook.title, webhook.source, webhook.state) == ("Push Hook", "gitlab", "ignored")


@pytest.mark.parametrize(
    ("facts", "title"),
    [
        (None, "push"),
        (
            {"kind": "branch_deleted", "branch": "b", "repo": ["https://f.example/a/b.git"]},
            "branch b was deleted in https://f.example/a/b",
        ),
        ({"kind": "change_closed", "number": "!7", "repo": []}, "change !7 was closed"),
        ({"kind": "issue_closed", "number": "7"}, "issue 7 was closed"),
        ({"kind": "from a later release"}, "push"),
        ({"branch": "b"}, "push"),
    ],
)
def test_a_webhook_says_what_it_was_about(facts: dict[str, Any] | None, title: str) -> None:
    assert title_of("push", facts) == title


@pytest.mark.parametrize("before", ["", "1", "1.2", "1.2.3.4", "a.b.c", "-1.0.0", "1.2.3\n", "9" * 40 + ".1.1"])
def test_a_place_that_no_page_has_named_is_refused(logbook: Logbook, before: str) -> None:
    with pytest.raises(Invalid):
        page(logbook, None, 5, before)


def test_a_kind_that_there_is_not_is_refused(logbook: Logbook) -> None:
    with pytest.raises(Invalid):
        page(logbook, "moon", 5, None)  # type: ignore[arg-type]
