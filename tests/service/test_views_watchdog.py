"""The watchdog: what it counts, and from when on it is amber or red."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from everturn.journal.events import BeganAnew, Ended, MirrorError
from everturn.logbook.entries import Done, SweepEntry, Waiting
from everturn.service.views.values import ClaimView, SessionView, Sign
from everturn.service.views.watchdog import Incidents, Reach, Seen, judge
from service.ground import Fleet, begun, issue, turn

NOW = 1_763_640_000.0
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


def sign(name: str, **seen: Any) -> Sign:
    view = judge(Seen(NOW, **{"incidents": Incidents(), **seen}))
    (found,) = [each for each in view.signs if each.name == name]
    assert found.reason.endswith(".")
    return found


def stale(held_until: float) -> ClaimView:
    return ClaimView("task:t", None, "s", "r", "w", 1, "stale", held_until)


def tainted(last_used_at: float) -> SessionView:
    return SessionView("s", "task:t", None, None, "w", "idle", last_used_at, tainted="two entries are missing")


def swept(age_s: float) -> SweepEntry:
    return SweepEntry(1, "daily", NOW - age_s - 1, "done", NOW - age_s)


def test_a_fleet_in_order_is_green() -> None:
    view = judge(Seen(NOW, Incidents(), sweep=swept(HOUR), sweep_interval_s=DAY))
    assert {each.light for each in view.signs} == {"green"}
    assert (view.light, view.since, len(view.signs)) == ("green", NOW - DAY, 9)


def test_the_worst_sign_tells_how_the_fleet_is() -> None:
    view = judge(Seen(NOW, Incidents(), tainted=[tainted(NOW)], stale=[stale(NOW)]))
    assert view.light == "red"


@pytest.mark.parametrize(
    ("ages", "light"),
    [
        ((), "green"),
        ((MINUTE, 2 * HOUR), "green"),
        ((5 * HOUR, 5.5 * HOUR, 5.9 * HOUR), "amber"),
        ((HOUR, 3 * HOUR, 5 * HOUR, 7 * HOUR), "green"),
    ],
)
def test_three_resume_failures_within_an_hour_are_too_many(ages: tuple[float, ...], light: str) -> None:
    times = tuple(sorted(NOW - age for age in ages))
    found = sign("resume_failures", incidents=Incidents(resume_failures=times))
    assert (found.light, found.count) == (light, len(times))


@pytest.mark.parametrize(
    ("ages", "light"),
    [
        ((), "green"),
        ((10 * HOUR,), "amber"),
        ((MINUTE,), "amber"),
        ((MINUTE, 4 * MINUTE, 8 * MINUTE), "red"),
        ((MINUTE, 20 * MINUTE), "amber"),
        ((20 * MINUTE, 24 * MINUTE, 28 * MINUTE), "amber"),
    ],
)
def test_transcripts_that_keep_failing_are_red(ages: tuple[float, ...], light: str) -> None:
    times = tuple(sorted(NOW - age for age in ages))
    assert sign("mirror_failures", incidents=Incidents(mirror_failures=times)).light == light


@pytest.mark.parametrize(
    ("count", "age_s", "light"), [(1, MINUTE, "amber"), (5, MINUTE, "red"), (5, HOUR * 5, "amber")]
)
def test_claims_that_are_lost_are_amber_and_many_at_once_red(count: int, age_s: float, light: str) -> None:
    found = sign("fenced_writers", incidents=Incidents(lost=(NOW - age_s,) * count))
    assert (found.light, found.count) == (light, count)


def test_a_session_that_lacks_something_is_red_for_a_day() -> None:
    assert sign("tainted_sessions", tainted=[tainted(NOW - HOUR)]).light == "red"
    assert sign("tainted_sessions", tainted=[tainted(NOW - 2 * DAY)]).light == "amber"


def test_a_stale_claim_is_amber() -> None:
    found = sign("stale_claims", stale=[stale(NOW - HOUR)])
    assert (found.light, found.count) == ("amber", 1)
    assert "1 h 00 min" in found.reason


@pytest.mark.parametrize(
    ("age_s", "light"), [(HOUR, "green"), (DAY + HOUR / 2, "green"), (DAY + 2 * HOUR, "amber"), (3 * DAY, "red")]
)
def test_a_sweep_that_is_late_is_amber_and_red_when_two_were_left_out(age_s: float, light: str) -> None:
    assert sign("sweeper", sweep=swept(age_s), sweep_interval_s=DAY).light == light


def test_a_sweep_that_failed_or_never_was_is_amber_and_none_is_wanted_when_they_are_off() -> None:
    assert sign("sweeper", sweep=swept(HOUR), sweep_failed=True, sweep_interval_s=DAY).light == "amber"
    assert sign("sweeper", sweep_interval_s=DAY).light == "amber"
    assert sign("sweeper", sweep_interval_s=0).light == "green"


@pytest.mark.parametrize(
    ("waiting", "failed", "light"),
    [
        (Waiting(), (), "green"),
        (Waiting(3, NOW - MINUTE), (), "green"),
        (Waiting(3, NOW - 2 * HOUR), (), "amber"),
        (Waiting(3, NOW - 2 * DAY), (), "red"),
        (Waiting(), (NOW - HOUR,), "amber"),
    ],
)
def test_webhooks_that_wait_for_long_or_were_given_up(
    waiting: Waiting, failed: tuple[float, ...], light: str
) -> None:
    assert sign("webhooks", waiting=waiting, failed_deliveries=failed).light == light


@pytest.mark.parametrize("name", ["store", "registry"])
def test_what_does_not_answer_is_amber_and_then_red(name: str) -> None:
    reach: dict[str, Any] = {name: Reach("connection refused", NOW - MINUTE)}
    assert sign(name, **reach).light == "amber"
    reach = {name: Reach("connection refused", NOW - HOUR)}
    assert sign(name, **reach).light == "red"


def test_what_nobody_knows_yet_is_not_counted() -> None:
    assert sign("fenced_writers", incidents=None).count is None


def test_it_counts_what_journals_registry_and_logbook_say(fleet: Fleet) -> None:
    lost = fleet.claim(issue(1), "1" * 20)
    error = MirrorError("the store did not answer", "main")
    fleet.keep(lost, [*begun(lost), *turn("a"), error, Ended("lost", "claimed again")])
    anew = fleet.claim(issue(2), "2" * 20)
    fleet.keep(anew, [*begun(anew), BeganAnew("another", anew.session_id), *turn("b"), Ended("completed")])
    fleet.claim(issue(3), "3" * 20, ttl_s=0.001)
    fleet.parts.registry.taint(anew, "two entries are missing")
    fleet.parts.logbook.deliveries.put("github", "d1", "push", {"kind": "branch_deleted"}).result(10)
    fleet.parts.logbook.deliveries.put("github", "d2", "push", {"kind": "branch_deleted"}).result(10)
    number = fleet.parts.logbook.deliveries.page(1)[0].number
    fleet.parts.logbook.deliveries.finish([Done(number, "failed", ("it never worked",))]).result(10)
    counts = {each.name: each.count for each in fleet.desk.watchdog().signs}
    assert counts == {
        "resume_failures": 1,
        "mirror_failures": 1,
        "fenced_writers": 1,
        "tainted_sessions": 1,
        "stale_claims": 1,
        "webhooks": 1,
        "sweeper": None,
        "store": None,
        "registry": None,
    }


def test_every_sign_leads_to_a_place_in_the_documentation(fleet: Fleet) -> None:
    docs = Path(__file__).parents[2] / "docs"
    for each in fleet.desk.watchdog().signs:
        name, _, anchor = each.help.partition("#")
        headings = [line for line in (docs / name).read_text(encoding="utf-8").splitlines() if line.startswith("#")]
        anchors = {line.lstrip("# ").lower().replace(" ", "-").replace("'", "") for line in headings}
        assert anchor in anchors, each.help
