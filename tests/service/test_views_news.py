"""The desk looks while somebody watches, and tells who waits when something that is shown has changed."""

from __future__ import annotations

import asyncio
import threading

import pytest

from everturn.clock import ManualClock
from everturn.journal.events import TextDelta
from everturn.service.views.looking import WATCHED_S, Looker
from everturn.service.views.news import News
from polling import wait_until
from service.ground import Fleet, begun, issue, turn

FIRST = "1" * 20


@pytest.fixture
def _timeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No minute ends in the middle of a test."""
    monkeypatch.setattr("everturn.service.views.fleet.COARSE_S", 1e12)


@pytest.mark.usefixtures("_timeless")
def test_the_version_stays_while_nothing_changes_but_the_time(fleet: Fleet) -> None:
    claim = fleet.claim(issue(1), FIRST)
    fleet.desk.fleet()
    before = fleet.desk.version(), fleet.desk.version(claim.session_id)
    fleet.parts.registry.renew(claim, 300)
    fleet.desk.fleet()
    assert (fleet.desk.version(), fleet.desk.version(claim.session_id)) == before


def test_each_thing_that_is_shown_makes_another_version(fleet: Fleet) -> None:
    seen = set()

    def look() -> None:
        fleet.desk.fleet()
        assert fleet.desk.version() not in seen
        seen.add(fleet.desk.version())

    look()
    claim = fleet.claim(issue(1), FIRST)
    look()
    fleet.keep(claim, [*begun(claim), *turn("the tap")])
    look()
    fleet.parts.registry.taint(claim, "two entries are missing")
    look()
    fleet.parts.registry.release(claim)
    look()
    fleet.parts.logbook.deliveries.put("github", "d1", "push", {"kind": "branch_deleted"}).result(10)
    look()


@pytest.mark.usefixtures("_timeless")
def test_what_is_said_in_one_session_is_no_news_of_another(fleet: Fleet) -> None:
    claims = [fleet.claim(issue(number), f"{number}" * 20) for number in (1, 2)]
    journals = [fleet.journals.open(each.run_id, each.work.key) for each in claims]
    for claim, journal in zip(claims, journals, strict=True):
        for event in (*begun(claim), *turn("the tap", ends=False)):
            journal.write(event)

    def events() -> list[int]:
        fleet.desk.fleet()
        runs = fleet.desk._watch.known.snapshot.runs
        return [runs[each.run_id].events if each.run_id in runs else 0 for each in claims]

    (count, _) = wait_until(lambda: events() if min(events()) == 6 else None, "both are in the mirror")
    before = [fleet.desk.version(each.session_id) for each in claims]
    whole = fleet.desk.version()
    journals[0].write(TextDelta("m9", 0, "and a word"))
    wait_until(lambda: events()[0] > count, "the word is in the mirror")
    assert fleet.desk.version(claims[0].session_id) > before[0]
    assert (fleet.desk.version(claims[1].session_id), fleet.desk.version()) == (before[1], whole)
    for journal in journals:
        journal.close(10)


def test_any_number_may_wait_and_all_are_told_at_once() -> None:
    async def steps() -> None:
        news = News()
        threads = threading.active_count()
        waiting = [asyncio.create_task(news.changed(0)) for _ in range(500)]
        elsewhere = asyncio.create_task(news.changed(0, "session-1"))
        await asyncio.sleep(0)
        assert news.waiting == 501
        assert threading.active_count() <= threads  # those of earlier tests may end meanwhile
        thread = threading.Thread(target=news.tell, args=({None: "something"},))
        thread.start()
        assert set(await asyncio.gather(*waiting)) == {1}
        assert not elsewhere.done()
        thread.join()
        news.end()
        assert await elsewhere == 0
        assert news.waiting == 0

    asyncio.run(steps())


def test_who_gives_up_waiting_is_forgotten() -> None:
    async def steps() -> None:
        news = News()
        task = asyncio.create_task(news.changed(0))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert news.waiting == 0
        news.touch(None)
        assert await news.changed(0) == 1

    asyncio.run(steps())


def test_a_desk_that_runs_tells_of_what_happens(fleet: Fleet) -> None:
    fleet.desk.start()

    async def watch() -> int:
        known = fleet.desk.version()
        waiting = asyncio.create_task(fleet.desk.changed(known))
        await asyncio.to_thread(fleet.claim, issue(1), FIRST)
        found = await asyncio.wait_for(waiting, 20)
        while not fleet.desk.fleet().live:
            found = await asyncio.wait_for(fleet.desk.changed(found), 20)
        return found

    assert asyncio.run(watch()) > 0


def test_who_waits_when_the_desk_is_stopped_is_let_go(fleet: Fleet) -> None:
    async def steps() -> None:
        fleet.desk.start()
        await asyncio.to_thread(fleet.desk.fleet)
        await asyncio.to_thread(fleet.desk._looker.stop, 10)
        waiting = asyncio.create_task(fleet.desk.changed(fleet.desk.version()))
        await asyncio.sleep(0)
        await asyncio.to_thread(fleet.desk.stop, 10)
        await asyncio.wait_for(waiting, 20)

    asyncio.run(steps())


def test_nobody_looks_while_nobody_watches() -> None:
    clock, looks = ManualClock(), []
    looker = Looker(lambda: looks.append(1), pause_s=0.01, clock=clock, is_wanted=lambda: False, name="everturn-test")
    looker.start()
    try:
        looker.ask()
        wait_until(lambda: len(looks) > 3, "it looks again and again")
        clock.advance(WATCHED_S + 1)
        before = len(looks)
        wait_until(lambda: looker._changed._waiters, "it rests")  # type: ignore[attr-defined]
        assert len(looks) <= before + 1
        looker.ask()
        wait_until(lambda: len(looks) > before + 2, "it looks again")
    finally:
        looker.stop(10)
    assert not looker.is_running


def test_what_takes_long_is_done_less_often() -> None:
    clock = ManualClock()
    rests: list[float] = []
    looker = Looker(
        lambda: clock.advance(3.0), pause_s=1.0, clock=clock, is_wanted=lambda: True, name="everturn-test"
    )
    looker._rest = rests.append  # type: ignore[method-assign,assignment]
    looker._rest_until_wanted = lambda: len(rests) < 2  # type: ignore[method-assign]
    looker._work()
    assert rests == [12.0, 12.0]


def test_a_question_waits_for_the_first_look_no_longer_than_it_is_told() -> None:
    gate = threading.Event()
    looker = Looker(gate.wait, pause_s=0.01, clock=ManualClock(), is_wanted=lambda: False, name="everturn-test")
    looker.start()
    try:
        looker.ask()
        looker.wait(0.01, older_s=60)
        assert looker._looked_at is None
        gate.set()
        looker.wait(20, older_s=60)
        assert looker._looked_at is not None
    finally:
        looker.stop(10)
