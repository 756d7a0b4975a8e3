"""Ten thousand sessions, five thousand of them with journals: all are listed, found and counted."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import astuple, fields

import pytest

from everturn.journal.events import Ended, Prompt, Started
from everturn.journal.lines import line_of, parse
from everturn.journal.reading import RunRef
from everturn.mirrors.base import Batch
from everturn.mirrors.sqlite import SqliteMirror, folder_of
from everturn.model import SessionRecord
from everturn.service.views.fleet import Snapshot
from mirrored import resulted
from service.ground import REPO, Fleet, issue

SESSIONS, JOURNALLED, LIVE = 10_000, 5_000, 50
DAY_S = 86_400.0

pytestmark = pytest.mark.slow


def record(number: int, now: float) -> SessionRecord:
    held_until = now + DAY_S if number < LIVE else None
    return SessionRecord(
        *(f"fixer@{REPO[:-4]}#{number}", f"session-{number:05}", 1, f"w{number % 7}", "file:///s", "/desk"),
        *(now - DAY_S, now - number, "fixer", f"{number:020}", "", held_until),
    )


def fill_registry(fleet: Fleet, now: float) -> None:
    """Put rows where claims would have put them, all at once."""
    fleet.parts.registry.release(fleet.claim(issue(SESSIONS), "0" * 19 + "x"))
    names = [field.name for field in fields(SessionRecord)]
    sql = f"INSERT INTO sessions ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    with sqlite3.connect(fleet.settings.registry_url().removeprefix("sqlite://")) as database:
        database.executemany(sql, [astuple(record(number, now)) for number in range(SESSIONS - 1)])


def fill_mirror(fleet: Fleet, now: float) -> None:
    mirror = SqliteMirror(folder_of(fleet.settings), fleet.settings.store_url())
    mirror.create()
    with mirror.rebuilding("asked") as folding:
        assert folding is not None
        for number in range(JOURNALLED):
            known = record(number, now)
            started = Started(
                *(known.run_id, known.work_key, known.session_id, 1, known.worker, "/desk"), agent="fixer", repo=REPO
            )
            events = [started, Prompt("go", resumed=False), resulted(0.01)]
            events += [] if number < LIVE else [Ended("completed")]
            at_ms = int(now * 1000)
            lines = [parse(line_of(event, seq, at_ms)).raw for seq, event in enumerate(events, 1)]
            folding.fold(Batch(RunRef(known.work_key, known.run_id), lines, part=1))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    now = fleet.parts.clock.now()
    fill_registry(fleet, now)
    fill_mirror(fleet, now)
    fleet.desk.keep_up = lambda: None  # type: ignore[method-assign]  # the store has none of it
    yield fleet
    fleet.close()


def test_all_are_counted_and_those_at_work_are_shown_with_what_they_cost(fleet: Fleet) -> None:
    found = fleet.desk.fleet()
    assert (found.sessions, len(found.live), found.problem) == (SESSIONS, LIVE, None)
    assert all(each.turn == 1 and each.cost_usd == 0.01 for each in found.live)
    assert found.cost_today_usd == pytest.approx(JOURNALLED * 0.01)


def test_every_session_is_on_exactly_one_page(fleet: Fleet) -> None:
    fleet.desk.fleet()
    snapshot = fleet.desk._watch.known.snapshot
    pages = [snapshot.listed(None, None, None, offset, 200) for offset in range(0, SESSIONS, 200)]
    seen = {each.session_id for page in pages for each in page.sessions}
    assert len(seen) == sum(len(page.sessions) for page in pages) == SESSIONS


def test_one_of_them_is_found(fleet: Fleet) -> None:
    (found,) = fleet.desk.sessions("session-07777").sessions
    assert (found.work, found.runs) == (issue(7777).key, None)
    assert fleet.desk.sessions(state="live").total == LIVE
    assert fleet.desk.session("session-00007").session.runs == 1


def test_what_has_not_changed_is_taken_over_from_the_look_before(fleet: Fleet) -> None:
    def look() -> Snapshot:
        fleet.desk.fleet()
        return fleet.desk._watch.known.snapshot

    before, version = look(), fleet.desk.version()
    after = look()
    assert all(after.lines[name] is line for name, line in before.lines.items())
    assert fleet.desk.version() == version
