"""How long the dashboard takes to answer, with many sessions and many runs at work.

    python -m bench.service.dashboard [--sessions 10000] [--live 50] [--streams 20] [--requests 1000] [--folder F]

Starts `everturn serve` on a registry and a store with that many sessions, all with journals. Runs say something and
renew their claims all the while, browsers listen on `/live` and fetch their page again when they hear of news, and
one client measures how long it waits for the first byte.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from everturn.journal.events import Assistant, Ended, Event, Init, Prompt, Result, Started, ToolResult, ToolUse
from everturn.journal.lines import line_of, parse
from everturn.journal.reading import RunRef
from everturn.log.format import encode_part
from everturn.log.names import Span
from everturn.log.objects import run
from everturn.log.stores import admit, connect
from everturn.model import Claim, Holder, WorkItem
from everturn.registry import open_registry
from everturn.settings import Settings

SEED = 7
AGENTS, REPOS = 20, 30
TTL_S = 30.0
PAUSE_S = 0.05  # between two events of the whole fleet
READY_S = 600.0
GOAL_MS = 100.0
PATHS = (
    "/",
    "/sessions",
    "/sessions?q=acme&agent=agent-3",
    "/disk",
    "/log",
    "/search?q=roof",
    "/api/fleet",
    "/api/sessions?limit=50",
    "/api/sessions?q=web-7&state=live",
    "/api/watchdog",
    "/api/stats?by=agent",
    "/api/search?q=roof",
)


@dataclass
class LiveRun:
    """A run at work.

    Attributes:
        claim: Its claim.
        seq: The number of its last event.
        part: The number of the last part of its journal.
    """

    claim: Claim
    seq: int = 0
    part: int = 0

    @property
    def ref(self) -> RunRef:
        """Its journal."""
        return RunRef(self.claim.work.key, self.claim.run_id)


@dataclass
class Fleet:
    """A registry and a store with many sessions.

    Args:
        settings: Where they are.
        sessions: How many.
        live: How many of them are at work.
    """

    settings: Settings
    sessions: int
    live: int
    runs: list[LiveRun] = field(default_factory=list)

    def __post_init__(self) -> None:
        url = self.settings.store_url()
        self._objects = connect(url, self.settings)
        run(admit(self._objects, "bench", url))
        self._registry = open_registry(self.settings.registry_url(), settings=self.settings)

    def build(self) -> None:
        """Make all of it."""
        for number in range(self.sessions):
            work = WorkItem(
                f"agent-{number % AGENTS}", f"https://forge.example/acme/web-{number % REPOS}.git", number
            )
            holder = Holder(f"worker-{number % 40}", f"{number:020x}")
            claim = self._registry.claim(work, holder, self.settings.store_url(), ttl_s=TTL_S)
            each = LiveRun(claim)
            if number >= self.sessions - self.live:
                self.say(each, begun(claim))
                self.runs.append(each)
            else:
                self.say(each, [*begun(claim), *turn("the roof"), Ended("completed")])
                self._registry.release(claim)
            if number % 1000 == 999:
                print(f"  {number + 1:,} sessions", file=sys.stderr)

    def say(self, live: LiveRun, events: Sequence[Event]) -> None:
        """Store events as the next part of a run's journal."""
        now_ms = int(time.time() * 1000)
        lines = [parse(line_of(event, seq, now_ms)).raw for seq, event in enumerate(events, live.seq + 1)]
        live.seq += len(events)
        live.part += 1
        name = f"{live.claim.run_id}-{live.part}"
        _, data = encode_part(live.part, lines, epoch=live.claim.epoch, writer="bench", write_id=name, kind="data")
        run(self._objects.create(f"{live.ref.folder}/{Span(live.part, live.part).file_name}", data))

    def work(self, ending: threading.Event) -> None:
        """Say something, one run after the other, and renew claims, until the end."""
        dice = random.Random(SEED)
        renewed = time.monotonic()
        while not ending.wait(PAUSE_S):
            live = dice.choice(self.runs)
            self.say(live, turn(f"door {live.seq}") if dice.random() < 0.3 else [Assistant("Well.", "m", "m")])
            if time.monotonic() - renewed > TTL_S / 3:
                renewed = time.monotonic()
                for each in self.runs:
                    self._registry.renew(each.claim, TTL_S)

    def renew(self) -> None:
        """Renew all claims."""
        for each in self.runs:
            self._registry.renew(each.claim, TTL_S)


def begun(claim: Claim) -> list[Event]:
    """Return how a run begins."""
    work = claim.work
    return [
        Started(
            claim.run_id, work.key, claim.session_id, claim.epoch, "w", "/desk", agent=work.agent, repo=work.repo
        ),
        Init(claim.session_id, "m", "/desk", "2.1", "default", []),
    ]


def turn(words: str) -> list[Event]:
    """Return a turn."""
    usage = {"input_tokens": 100, "output_tokens": 10}
    models = {"m": {"inputTokens": 100, "outputTokens": 10, "costUSD": 0.01}}
    return [
        Prompt(f"Look at {words}.", resumed=False),
        ToolUse("c1", "Read", {"file_path": "/desk/a.py"}, "m1", "m"),
        ToolResult("c1", f"there is {words}"),
        Assistant(f"This is {words}.", "m1", "m"),
        Result("success", False, "done", 1, 1000, 900, 0.01, usage, models),
    ]


@contextmanager
def served(state: Path, store: str) -> Iterator[str]:
    """Start the service, and enter with its address."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(state),
        "EVERTURN_STATE": str(state),
        "EVERTURN_STORE": store,
    }
    command = [str(Path(sys.executable).with_name("everturn")), "serve", "--port", "0", "--json"]
    log = (state / "service.log").open("wb")
    with subprocess.Popen(command, env=environment, cwd=state, stdout=subprocess.PIPE, stderr=log) as service:
        try:
            if service.stdout is None:
                raise SystemExit("the service has no output")
            yield json.loads(service.stdout.readline())["address"]
        finally:
            service.terminate()
            log.close()


class Browser:
    """Listens for news, and fetches a page again when there are some."""

    def __init__(self, address: str, path: str) -> None:
        self._host = urlsplit(address).netloc
        self._path = path
        self.fetched = 0

    def work(self, ending: threading.Event) -> None:
        """Listen until the end."""
        with closing(http.client.HTTPConnection(self._host, timeout=60)) as stream:
            stream.request("GET", "/live")
            answer = stream.getresponse()
            while not ending.is_set() and (line := answer.readline()):
                if line.startswith(b"data:"):
                    with closing(http.client.HTTPConnection(self._host, timeout=60)) as page:
                        page.request("GET", self._path)
                        page.getresponse().read()
                    self.fetched += 1


def first_byte_s(connection: http.client.HTTPConnection, path: str) -> float:
    """Return how long the first byte of an answer takes."""
    begun_at = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    seconds = time.perf_counter() - begun_at
    content = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path} was answered {answer.status}: {content[:300]!r}")
    return seconds


def wait_for_mirror(address: str, fleet: Fleet) -> float:
    """Wait until the service knows all runs, and return how long that took."""
    begun_at = time.monotonic()
    with closing(http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)) as connection:
        while time.monotonic() - begun_at < READY_S:
            connection.request("GET", "/api/fleet")
            found = json.loads(connection.getresponse().read())
            if found["problem"] is None and len(found["live"]) == fleet.live and found["live"][-1]["started_at"]:
                return time.monotonic() - begun_at
            fleet.renew()
            threading.Event().wait(1)
    raise SystemExit(f"the mirror was not built within {READY_S:g} s: {found['problem']}")


def measure(address: str, fleet: Fleet, streams: int, requests: int) -> dict[str, list[float]]:
    """Return how long first bytes took, by path."""
    ending = threading.Event()
    browsers = [Browser(address, PATHS[number % 4]) for number in range(streams)]
    threads = [threading.Thread(target=each.work, args=(ending,), daemon=True) for each in (fleet, *browsers)]
    for thread in threads:
        thread.start()
    session_id = fleet.runs[0].claim.session_id
    paths = (*PATHS, f"/sessions/{session_id}", f"/api/sessions/{session_id}")
    taken: dict[str, list[float]] = {path: [] for path in paths}
    dice = random.Random(SEED)
    with closing(http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)) as connection:
        for path in paths:
            first_byte_s(connection, path)  # templates are compiled the first time
        for _ in range(requests):
            path = dice.choice(paths)
            taken[path].append(first_byte_s(connection, path))
            ending.wait(0.02)
    ending.set()
    threads[0].join(10)
    print(f"  pages fetched by browsers: {sum(each.fetched for each in browsers):,}", file=sys.stderr)
    return taken


def quantile(values: Sequence[float], part: float) -> float:
    """Return a quantile in milliseconds."""
    return 1000 * sorted(values)[min(len(values) - 1, int(len(values) * part))]


def tell(name: str, values: Sequence[float]) -> None:
    """Print how long something took."""
    p50, p99 = quantile(values, 0.5), quantile(values, 0.99)
    print(f"{name:36} n {len(values):4}  p50 {p50:6.1f} ms  p99 {p99:6.1f} ms")


def main() -> None:
    """Build, measure, tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--live", type=int, default=50)
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="where to work; default: the system's folder for temporary files")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="everturn-bench-", dir=given.folder) as folder:
        state = Path(folder)
        settings = Settings.load(state=state, store=(state / "store").as_uri())
        fleet = Fleet(settings, given.sessions, given.live)
        fleet.build()
        fleet.renew()
        with served(state, settings.store_url()) as address:
            print(f"  the mirror was there after {wait_for_mirror(address, fleet):.0f} s", file=sys.stderr)
            taken = measure(address, fleet, given.streams, given.requests)
    for path, values in taken.items():
        if values:
            tell(path[: path.index("/sessions/")] + "/sessions/SESSION" if "/sessions/" in path else path, values)
    every = [value for values in taken.values() for value in values]
    tell("all", every)
    print(f"the goal, p99 of at most {GOAL_MS:g} ms, is {'met' if quantile(every, 0.99) <= GOAL_MS else 'missed'}")


if __name__ == "__main__":
    main()
