"""Webhooks are queued once, are due until they are done, and say then what came of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from everturn.clock import ManualClock
from everturn.errors import Invalid
from everturn.logbook.deliveries import AHEAD_S
from everturn.logbook.entries import DeliveryEntry, Done, Waiting
from everturn.logbook.logbook import Logbook
from everturn.logbook.texts import DETAIL_CHARS, DETAILS

FACTS = {"kind": "issue_closed", "repo": ["https://forge/a/b"], "number": "7", "branch": None}


def put(logbook: Logbook, *ids: str) -> list[DeliveryEntry]:
    for each in ids:
        logbook.deliveries.put("github", each, "issues", FACTS).result()
    return sorted(logbook.deliveries.page(1000), key=lambda entry: entry.number)


def test_a_webhook_is_queued_and_due(logbook: Logbook, clock: ManualClock) -> None:
    assert logbook.deliveries.put("github", "d-1", "issues", FACTS).result() == "queued"
    (entry,) = logbook.deliveries.due(clock.now(), 10)
    assert entry == DeliveryEntry(entry.number, "github", "d-1", "issues", FACTS, "queued", clock.now())
    assert logbook.deliveries.waiting() == Waiting(1, clock.now())


def test_nothing_is_made_by_looking(logbook: Logbook, path: Path) -> None:
    assert logbook.deliveries.page(10) == logbook.deliveries.due(0, 10) == logbook.acts.page(1) == []
    assert (logbook.sweeps.last(), logbook.samples.since(0), logbook.deliveries.waiting()) == (None, [], Waiting())
    assert not path.parent.exists()


@pytest.mark.parametrize("state", ["queued", "waiting", "done", "failed", "ignored"])
def test_a_webhook_that_comes_again_changes_nothing_whatever_came_of_it(logbook: Logbook, state: str) -> None:
    ignored = "nothing ends by it" if state == "ignored" else ""
    logbook.deliveries.put("gitea", "d-1", "push", None if ignored else FACTS, ignored).result()
    (entry,) = logbook.deliveries.page(1)
    if state in ("waiting", "done", "failed"):
        logbook.deliveries.finish([Done(entry.number, state, ("so",), 5.0)]).result()  # type: ignore[arg-type]
    before = logbook.deliveries.page(10)
    assert logbook.deliveries.put("gitea", "d-1", "push", {"kind": "other"}).result() == "duplicate"
    assert logbook.deliveries.put("gitea", "d-1", "push", None, "why").result() == "duplicate"
    assert logbook.deliveries.page(10) == before
    assert before[0].state == state


def test_the_same_id_of_another_forge_is_another_webhook(logbook: Logbook) -> None:
    answers = [logbook.deliveries.put(forge, "d-1", "push", FACTS).result() for forge in ("gitea", "forgejo")]
    assert answers == ["queued", "queued"]


def test_what_is_ignored_is_noted_and_never_due(logbook: Logbook, clock: ManualClock) -> None:
    assert logbook.deliveries.put("gitlab", "d-1", "ping", None, "it is only a ping").result() == "ignored"
    (entry,) = logbook.deliveries.page(1)
    assert (entry.state, entry.details, entry.facts, entry.done_at) == (
        *("ignored", ("it is only a ping",), None),
        clock.now(),
    )
    assert logbook.deliveries.due(clock.now(), 10) == []
    assert logbook.deliveries.waiting() == Waiting()


def test_what_is_done_stays_as_it_is(logbook: Logbook, clock: ManualClock) -> None:
    (entry,) = put(logbook, "d-1")
    logbook.deliveries.finish([Done(entry.number, "done", ("freed it", "kept that"), freed=1)]).result()
    done = logbook.deliveries.page(1)
    clock.advance(60)
    for again in (Done(entry.number, "failed", ("no",)), Done(entry.number, "waiting", (), 1.0), Done(99, "done")):
        logbook.deliveries.finish([again]).result()
    assert logbook.deliveries.page(10) == done
    assert (done[0].state, done[0].details, done[0].freed, done[0].attempts) == (
        "done",
        ("freed it", "kept that"),
        1,
        1,
    )
    assert logbook.deliveries.due(clock.now(), 10) == []


def test_what_waits_is_due_when_its_time_has_come(logbook: Logbook, clock: ManualClock) -> None:
    (entry,) = put(logbook, "d-1")
    done = Done(entry.number, "waiting", ("a run is at work",), clock.now() + 15, failing_since=clock.now())
    logbook.deliveries.finish([done]).result()
    assert logbook.deliveries.due(clock.now() + 14.9, 10) == []
    (waiting,) = logbook.deliveries.due(clock.now() + 15, 10)
    assert (waiting.state, waiting.attempts, waiting.next_at) == ("waiting", 1, clock.now() + 15)
    assert (waiting.details, waiting.failing_since, waiting.done_at) == (("a run is at work",), clock.now(), None)
    assert logbook.deliveries.waiting() == Waiting(1, clock.now())


def test_a_clock_that_is_set_back_makes_nothing_wait_for_long(logbook: Logbook, clock: ManualClock) -> None:
    (entry,) = put(logbook, "d-1")
    logbook.deliveries.finish([Done(entry.number, "waiting", (), clock.now() + 300)]).result()
    assert len(logbook.deliveries.due(clock.now() - 86_400, 10)) == 1
    assert logbook.deliveries.due(clock.now() + 300 - AHEAD_S, 10) == []


def test_due_is_the_oldest_first_and_a_page_the_newest_first(logbook: Logbook, clock: ManualClock) -> None:
    entries = put(logbook, *(f"d-{number}" for number in range(5)))
    assert [entry.delivery_id for entry in logbook.deliveries.due(clock.now(), 3)] == ["d-0", "d-1", "d-2"]
    assert [entry.delivery_id for entry in logbook.deliveries.page(2)] == ["d-4", "d-3"]
    assert [entry.delivery_id for entry in logbook.deliveries.page(9, entries[2].number)] == ["d-1", "d-0"]


def test_details_are_bounded_in_number_and_length_and_can_always_be_stored(logbook: Logbook) -> None:
    (entry,) = put(logbook, "d-1")
    details = ["x" * 10_000, "half a \ud800 pair", *(f"fate {number}" for number in range(5000))]
    logbook.deliveries.finish([Done(entry.number, "done", tuple(details), freed=4000)]).result()
    (done,) = logbook.deliveries.page(1)
    assert len(done.details) == DETAILS
    assert done.details[0] == "x" * (DETAIL_CHARS - 1) + "…"
    assert done.details[1] == r"half a \ud800 pair"
    assert done.details[-1] == f"… and {5002 - DETAILS + 1:,} more"


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE deliveries; --", "\0", "\u202etxet", "a" * 900, "ü\n\x1b[31m", "\ud800"]
)
def test_hostile_texts_come_back_as_they_were(logbook: Logbook, text: str) -> None:
    facts = {"kind": "branch_deleted", "repo": [text], "branch": text}
    assert logbook.deliveries.put("github", "d-1", "delete", facts).result() == "queued"
    (entry,) = logbook.deliveries.page(1)
    assert entry.facts == facts


@pytest.mark.parametrize(
    ("delivery_id", "facts"),
    [
        ("", FACTS),
        ("x" * 1001, FACTS),
        ("\ud800", FACTS),
        ("d", {"repo": ["x" * 70_000]}),
        ("d", {"repo": object()}),
    ],
    ids=["no id", "a long id", "an id that is no text", "large facts", "facts that are no JSON"],
)
def test_what_cannot_be_kept_is_refused(logbook: Logbook, delivery_id: str, facts: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        logbook.deliveries.put("github", delivery_id, "push", facts).result()
    assert logbook.deliveries.page(1) == []


def test_numbers_are_never_given_twice(logbook: Logbook, clock: ManualClock) -> None:
    (first,) = put(logbook, "d-1")
    logbook.deliveries.finish([Done(first.number, "done")]).result()
    clock.advance(400 * 86_400)
    assert logbook.prune(86_400).result() == 1
    (second,) = put(logbook, "d-1")
    assert second.number > first.number
