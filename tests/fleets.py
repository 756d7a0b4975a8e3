"""Fleets that are made up, for the tests of the dashboard: empty ones, large ones, and hostile ones."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from everturn.clock import ManualClock
from everturn.mirrors.hits import Filters, Found, Hit, Piece
from everturn.service.parts import Parts
from everturn.service.views.desk import LogKind, LogPage
from everturn.service.views.values import (
    ClaimView,
    DiskView,
    FleetView,
    Light,
    Listed,
    LogEntry,
    Sample,
    SessionView,
    Sign,
    WatchdogView,
    WorkdirView,
)
from everturn.service.web.app import make_app
from everturn.service.web.protocol import Config, Limits
from everturn.settings import Settings
from everturn.telemetry import Metrics
from polling import wait_until

NOW = 1_800_000_000.0
HOUR_S, DAY_S = 3600.0, 86_400.0
MARKER = "gotcha"
HOSTILE = (
    f"<script>document.title='{MARKER}'</script>",
    f"<img src=x onerror=\"document.title='{MARKER}'\">",
    f"\"'><svg onload=document.title='{MARKER}'>",
    "javascript:alert(1)",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07 \x00\x08\x7f\x9b31m",
    "\u202egnp.exe\u202d \u2066isolated \u05d0\u05d1\u05d2 \u0627\u0644\u0639",
    "W" * 3000,
    "a/" * 500 + "#" * 50,
    "{{ 7 * 7 }} {% raw %} {#",
    "\U0001f98a\u200d\U0001f692 z\u0300\u0301\u0302" + "\u0489" * 60,
    "\ud800 lonely",
    "",
)
_AGENTS = ("fixer", "reviewer", "upgrader", "docs")
_REPOS = (
    "https://github.com/acme/shop",
    "https://git.example.org/platform/payments-gateway",
    "git@gitlab.example:web/app",
)
_TOOLS = ("Bash", "Edit", None, "Read", None, "mcp__tracker__list_open_issues")
_SIGNS: tuple[tuple[str, str, str], ...] = (
    ("resume_failures", "Resume failures", "Every session could be resumed."),
    ("mirror_failures", "Mirror failures", "Every entry is in the store."),
    ("fenced_writers", "Fenced writers", "No writer was overtaken."),
    ("tainted_sessions", "Tainted sessions", "No transcript has gaps."),
    ("sweeper", "Sweeper", "It ran at 03:00 and removed 14 things."),
    ("stale_claims", "Stale claims", "No claim is stale."),
    ("webhooks", "Webhooks", "All of them are done."),
    ("store", "Store", "It answers in 12 ms."),
    ("registry", "Registry", "It answers in 1 ms."),
)


@dataclass
class FakeDesk:
    """Answers what it is told to. Whatever is changed is to be told with `publish`, from any thread."""

    fleet_view: FleetView = field(default_factory=lambda: FleetView(NOW))
    all_sessions: tuple[SessionView, ...] = ()
    watchdog_view: WatchdogView = field(default_factory=lambda: watchdog("green"))
    disk_view: DiskView = field(default_factory=lambda: disk(0))
    entries: tuple[LogEntry, ...] = ()
    found: Found = field(default_factory=lambda: Found((), 0))
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.number = 1
        self.is_stopped = False
        self.searched: list[tuple[str, Filters | None]] = []
        self.asked = 0
        self._lock = threading.Lock()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def publish(self, **changes: object) -> None:
        """Change what is answered, and tell everybody."""
        for name, value in changes.items():
            setattr(self, name, value)
        self._wake(1)

    def stop(self) -> None:
        """There will be no more news."""
        self.is_stopped = True
        self._wake(0)

    @property
    def waiting(self) -> int:
        """How many wait for news."""
        return len(self._waiting)

    def _wake(self, by: int) -> None:
        with self._lock:
            self.number += by
            waiting, self._waiting = self._waiting, []
        for loop, event in waiting:
            loop.call_soon_threadsafe(event.set)

    def version(self) -> int:
        return self.number

    async def changed(self, since: int, session_id: str | None = None) -> int:
        waits = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            if self.number != since or self.is_stopped:
                return self.number
            self._waiting.append(waits)
        try:
            await waits[1].wait()
        finally:
            with self._lock:
                if waits in self._waiting:
                    self._waiting.remove(waits)
        return self.number

    def fleet(self) -> FleetView:
        self._fail()
        return self.fleet_view

    def watchdog(self) -> WatchdogView:
        return self.watchdog_view

    def disk(self) -> DiskView:
        self._fail()
        return self.disk_view

    def sessions(self, query: str | None, agent: str | None, state: str | None, offset: int, limit: int) -> Listed:
        self._fail()
        fits = tuple(
            each
            for each in self.all_sessions
            if (not query or query in each.work)
            and (not agent or agent == each.agent)
            and (not state or state == each.state)
        )
        return Listed(fits[offset : offset + limit], len(fits), offset)

    def search(self, query: str, filters: Filters | None, limit: int) -> Found:
        self._fail()
        self.searched.append((query, filters))
        return replace(self.found, hits=self.found.hits[:limit])

    def log(self, kind: LogKind | None, limit: int, before: str | None) -> LogPage:
        self._fail()
        start = int(before or 0)
        fits = [each for each in self.entries if kind in (None, each.kind)]
        older = str(start + limit) if start + limit < len(fits) else None
        return LogPage(tuple(fits[start : start + limit]), older)

    def _fail(self) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error


def fleet_of(size: int, *, live: int | None = None) -> FakeDesk:
    """Return a desk of a fleet with this many sessions, as one would look that is at work."""
    live = min(size, 50) if live is None else live
    claims = tuple(claim(number) for number in range(live))
    stale = tuple(
        replace(claim(live + number), state="stale", held_until=NOW - 400 - 60 * number)
        for number in range(min(size // 10, 4))
    )
    return FakeDesk(
        FleetView(NOW, claims, stale, size, cost_today_usd=3.17 * live),
        tuple(session(number, size) for number in range(size)),
        watchdog("amber" if stale else "green"),
        disk(size),
        tuple(log_entry(number) for number in range(size, 0, -1)),
        Found(tuple(hit(number) for number in range(min(size, 30))), size, is_all=size < 5000),
    )


def claim(number: int) -> ClaimView:
    """Return a live claim; each number another one."""
    begun = NOW - 95 - 371 * number
    return ClaimView(
        work=_work(number),
        agent=_AGENTS[number % 4],
        session_id=_id(number),
        run_id=f"{number:020x}",
        worker=f"worker-{number % 7}.eu-west-1.compute",
        epoch=1 + number % 3,
        state="live",
        held_until=NOW + 21 + number % 30,
        started_at=begun if number % 9 else None,
        last_event_at=NOW - 2 - 5 * (number % 11),
        turn=1 + number % 6,
        tool=_TOOLS[number % len(_TOOLS)],
        model="claude-sonnet-4-5",
        cost_usd=None if number % 8 == 7 else 0.31 * (number % 13),
        cost_is_partial=number % 5 == 4,
        tokens=41_000 + 17_531 * number,
        resumed=number % 4 in (1, 2),
        took_over=number % 4 == 2,
        tainted="3 entries are missing" if number % 12 == 6 else None,
    )


def session(number: int, size: int) -> SessionView:
    """Return a session of a list."""
    state = "live" if number < 50 else ("stale" if number < 54 else "idle" if number % 3 else "over")
    return SessionView(
        session_id=_id(number),
        work=_work(number),
        agent=_AGENTS[number % 4],
        repo=_REPOS[number % 3],
        worker=f"worker-{number % 7}",
        state=state,  # type: ignore[arg-type]
        last_used_at=NOW - 17 * number,
        runs=1 + number % 4 if number % 10 else None,
        turns=number % 23,
        cost_usd=0.07 * (number % 91),
        cost_is_partial=number % 15 == 3,
        tainted="an entry is missing" if number % 40 == 9 else None,
    )


def watchdog(light: Light = "green") -> WatchdogView:
    """Return how a fleet is: as well as it can be, with a stale claim, or with a store that is away."""
    signs = [
        Sign(name, title, "green", 0 if n < 4 else None, reason, "alarms.md")
        for n, (name, title, reason) in enumerate(_SIGNS)
    ]
    if light != "green":
        signs[5] = Sign(
            "stale_claims",
            "Stale claims",
            "amber",
            4,
            "The oldest ran out 10 min ago, and nobody has taken over.",
            "runs.md#claims",
        )
        signs[0] = Sign(
            "resume_failures",
            "Resume failures",
            "amber",
            2,
            "Two sessions were not found, and began anew.",
            "alarms.md#everturnresumefailures",
        )
    if light == "red":
        signs[7] = Sign(
            "store", "Store", "red", None, "It did not answer for 3 min.", "alarms.md#everturnmirrorfailures"
        )
    return WatchdogView(light, tuple(signs), NOW - DAY_S)


def disk(size: int) -> DiskView:
    """Return how much room the workdirs of a fleet take."""
    workdirs = tuple(
        WorkdirView(
            name=f"shop-{number}-{number * 7919 % 65536:04x}",
            repo=_REPOS[number % 3],
            agent=_AGENTS[number % 4] if number % 6 else None,
            branch=None if number % 5 == 0 else f"fix/issue-{number}-the-cart-forgets-its-coupons",
            work=_work(number),
            size_bytes=3_200_000_000 // (number + 1) if number % 17 != 16 else None,
            last_used_at=NOW - 977 * number,
        )
        for number in range(size)
    )
    trees = sum(each.size_bytes or 0 for each in workdirs)
    repos = {repo: trees // (2 + number) for number, repo in enumerate(_REPOS)} if size else {}
    return DiskView(
        trees_bytes=trees,
        ignored_bytes=trees // 3,
        caches_bytes=4_100_000_000 if size else 0,
        quarantine_bytes=612_000_000 if size else 0,
        trash_bytes=81_000_000 if size else 0,
        disk_total_bytes=120_000_000_000,
        disk_free_bytes=41_300_000_000,
        wanted_free_bytes=1 << 30,
        quota_bytes=60_000_000_000 if size > 1 else None,
        unmeasured=size // 17,
        measured_at=NOW - 3 * HOUR_S if size else None,
        by_repo=repos,
        by_agent={name: trees // (3 + number) for number, name in enumerate((*_AGENTS, ""))} if size else {},
        workdirs=workdirs,
        trend=tuple(
            Sample(
                NOW - (60 - day) * DAY_S / 2,
                9_000_000_000 + day * 130_000_000 * (1 + day % 5),
                4_000_000_000,
                600_000_000 + 9_000_000 * (day % 13),
                41_000_000_000,
            )
            for day in range(60 if size else 0)
        ),
        sweep_frees_bytes=2_345_000_000 if size else None,
        sweep_removes=14 if size else None,
        sweep_tried_at=NOW - 61 if size else None,
    )


def hit(number: int) -> Hit:
    """Return a text that was found."""
    pieces = (
        Piece("the cart forgets its "),
        Piece("coupons", is_match=True),
        Piece(" when the session is renewed: the cookie is written before the price is known, so that the next "),
        Piece("coupon", is_match=True),
        Piece("…"),
    )
    kinds = ("prompt", "answer", "tool_result", "thinking", "tool_input")
    return Hit(
        _work(number), f"{number:020x}", number % 7, 12 + number, "2027-01-14T21:03:07.123Z", kinds[number % 5],
        "Bash" if number % 5 in (2, 4) else None, _AGENTS[number % 4], _REPOS[number % 3],
        _id(number) if number % 6 else None, f"worker-{number % 7}", 9.1 - number, pieces,
    )  # fmt: skip


def log_entry(number: int) -> LogEntry:
    """Return an entry of the log."""
    at = NOW - 40 - 611 * (5000 - number if number > 100 else 30 - number % 31)
    details = (
        f"freed shop-{number}-beef: 1.2 GB",
        "kept shop-7-cafe: it has a commit that is on no remote",
        f"ended the session of fixer@https://github.com/acme/shop#{number}",
        "dropped a record of a session that had expired",
        "left alone shop-9-f00d: a run is at work in it",
    )
    if number % 7 == 0:
        return LogEntry(number, "sweep", at, "Daily sweep", "done", details, at + 31, "daily")
    if number % 11 == 3:
        return LogEntry(
            number,
            "admin",
            at,
            "Reset of everything of the agent fixer, as a dry run",
            "done",
            details[:1],
            at + 0.4,
            "10.0.3.7",
        )
    state = ("done", "done", "ignored", "waiting", "done", "failed", "queued")[number % 7]
    title = f"Pull request {number} of acme/shop was merged"
    return LogEntry(
        number, "webhook", at, title, state, details[: number % 3], at + 3 if state == "done" else None, "github"
    )


def hostile_fleet() -> FakeDesk:
    """Return a desk all of whose texts are what somebody would send who wants to break the page."""
    desk = fleet_of(len(HOSTILE))
    texts = dict(enumerate(HOSTILE))
    live = tuple(_hostile_run(each, texts[n]) for n, each in enumerate(desk.fleet_view.live))
    desk.fleet_view = replace(
        desk.fleet_view, live=live + _odd_runs(live), stale=live, problem=" ".join(HOSTILE), cost_today_usd=None
    )
    desk.all_sessions = tuple(_hostile_session(each, texts[n], -1e12 * n) for n, each in enumerate(desk.all_sessions))
    desk.watchdog_view = WatchdogView("red", tuple(_hostile_signs()), NOW)
    desk.disk_view = _hostile_disk(desk.disk_view, texts)
    desk.entries = tuple(
        replace(
            each, title=texts[n] or "-", state=texts[n] or "done", details=HOSTILE, source=texts[n], done_at=NOW * 9
        )
        for n, each in enumerate(desk.entries)
    )
    desk.found = Found(tuple(_hostile_hit(n, text) for n, text in texts.items()), 12)
    return desk


def _hostile_run(run: ClaimView, text: str) -> ClaimView:
    return replace(
        run,
        work=f"{text}@{text}#{text}",
        agent=text,
        session_id=text or "x",
        worker=text,
        tool=text,
        model=text,
        tainted=text,
    )


def _odd_runs(live: Sequence[ClaimView]) -> tuple[ClaimView, ...]:
    """Return runs whose numbers make no sense."""
    return (
        replace(
            live[0],
            started_at=-1e15,
            held_until=1e18,
            last_event_at=float("nan"),
            cost_usd=float("nan"),
            turn=-1,
            tokens=10**15,
            epoch=10**12,
        ),
        replace(live[1], started_at=0.0, held_until=float("inf"), cost_usd=float("inf"), run_id="odd"),
        replace(live[2], cost_usd=1e12, run_id="rich"),
        replace(live[3], cost_usd=0.0000001, run_id="poor"),
    )


def _hostile_session(row: SessionView, text: str, last_used_at: float) -> SessionView:
    return replace(
        row, work=text, agent=text, worker=text, session_id=text or "x", tainted=text, last_used_at=last_used_at
    )


def _hostile_signs() -> Iterator[Sign]:
    for light in ("red", "amber", "green"):
        for text in HOSTILE:
            yield Sign(text, text, light, 10**9, text, text)


def _hostile_disk(disk: DiskView, texts: Mapping[int, str]) -> DiskView:
    return replace(
        disk,
        by_repo={text: 10**n for n, text in texts.items()},
        by_agent={text: -n for n, text in texts.items()},
        workdirs=tuple(
            replace(each, name=texts[n], repo=texts[n], agent=texts[n], branch=texts[n], work=texts[n])
            for n, each in enumerate(disk.workdirs)
        ),
        trees_bytes=10**18,
        disk_total_bytes=0,
        disk_free_bytes=-1,
    )


def _hostile_hit(number: int, text: str) -> Hit:
    return replace(
        hit(number),
        work=text,
        agent=text,
        worker=text,
        kind=text,
        tool=text,
        session_id=text or None,
        run_id=text,
        at=text,
        excerpt=(Piece(text), Piece(text, is_match=True)),
    )


def app_of(desk: FakeDesk, state: Path) -> FastAPI:
    """Return the service's app, whose pages show what a desk knows, at the time that `NOW` is."""
    parts = Parts.open(Settings.load(state=state), clock=ManualClock(NOW))
    parts.close()  # nobody writes anything down here
    made: Any = desk
    return make_app(replace(parts, metrics=Metrics(CollectorRegistry())), made)


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve an app on loopback, as the service does. Yields its address."""
    server = uvicorn.Server(Config(app, Limits(), 1.0))
    server.config.port = 0
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, "the server listens")
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


def _work(number: int) -> str:
    if number % 13 == 5:
        return f"task:nightly-{number}"
    return f"{_AGENTS[number % 4]}@{_REPOS[number % 3]}#{400 + number}"


def _id(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-{number * 7919:012x}"
