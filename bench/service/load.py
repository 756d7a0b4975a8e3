"""Whether webhooks that were accepted are all done, each once, when many come and the service is killed meanwhile.

    python -m bench.service.load [--rate 500] [--seconds 30] [--held 60] [--folder FOLDER]

Starts `everturn serve`, sends it signed webhooks at a steady rate from this process, kills it in the middle with
SIGKILL, starts it again at the same port, and waits until nothing is queued any more. Every tenth webhook is one that
was sent before; what had no answer is sent again in the end. Some close issues that hold a workdir and a session.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.service.dashboard import quantile
from everturn.model import Holder, WorkItem
from everturn.service.parts import Parts
from everturn.settings import Settings
from everturn.testing import make_repository

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

FORGE = "https://forge.example"
REPO = f"{FORGE}/acme/web.git"
SECRET = "the-secret-of-the-bench"  # noqa: S105
CONNECTIONS = 48
REPLAYED_EVERY, REPLAYED_BEFORE = 10, 25
TEXT_BYTES = 8192  # of an issue, which forges send along
QUIET_S = 300.0
FIRST_UNHELD = 1_000_000


@dataclass(frozen=True)
class Plan:
    """What is sent.

    Attributes:
        rate: How many webhooks in a second.
        seconds: For how long.
        held: How many of them close issues that hold a workdir and a session.
    """

    rate: int = 500
    seconds: float = 30.0
    held: int = 60

    @property
    def count(self) -> int:
        """How many webhooks are sent."""
        return int(self.rate * self.seconds)

    def delivery(self, place: int) -> int:
        """Return which delivery is sent at a place of the row; it was sent before if it is not that place's own."""
        is_replay = place % REPLAYED_EVERY == REPLAYED_EVERY - 1 and place >= REPLAYED_BEFORE
        return place - REPLAYED_BEFORE if is_replay else place

    def issue(self, delivery: int) -> int:
        """Return which issue a delivery closes: the first ones hold something."""
        spread = max(self.count // max(self.held, 1), 1)
        nth, rest = divmod(delivery, spread)
        return nth + 1 if rest == 1 and nth < self.held else FIRST_UNHELD + delivery


@dataclass
class Result:
    """What came of it.

    Attributes:
        seconds: How long sending took.
        answers: How often each answer came: a status; `refused`: no connection; `broken`: no answer.
        queued: How often each delivery was answered 202.
        accepted: The deliveries that were answered with a success.
        taken_s: How long each answer took that came.
        down_s: How long nobody listened.
        again: How many deliveries were sent again in the end, as they had not been answered.
        emptied_s: How long after the last webhook all were done.
        states: What the logbook says of each delivery.
        rows: How many rows it has.
        freed: How often each workdir and session was freed, by the log.
        left: How many issues that were accepted as closed hold something still.
        meant: How many issues were accepted as closed that had held something.
    """

    seconds: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    queued: Counter[str] = field(default_factory=Counter)
    accepted: set[str] = field(default_factory=set)
    taken_s: list[float] = field(default_factory=list)
    down_s: float = 0.0
    again: int = 0
    emptied_s: float = 0.0
    states: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    freed: Counter[str] = field(default_factory=Counter)
    left: int = 0
    meant: int = 0

    @property
    def sent(self) -> int:
        """How many webhooks were sent, before some were sent again."""
        return self.answers.total() - self.again

    @property
    def done(self) -> int:
        """How many of the accepted deliveries were done."""
        return sum(self.states.get(each) == "done" for each in self.accepted)

    @property
    def twice(self) -> int:
        """How many deliveries were queued, noted or freed something more than once."""
        again = sum(count - 1 for counts in (self.queued, self.freed) for count in counts.values())
        return again + self.rows - len(self.states)

    @property
    def is_right(self) -> bool:
        """Whether every delivery that was accepted was done exactly once."""
        return self.done == len(self.accepted) and self.twice == 0 and self.left == 0

    def table(self) -> list[tuple[str, str]]:
        """Return what is told of it."""
        accepted = sum(count for answer, count in self.answers.items() if answer in ("200", "202"))
        other = {k: v for k, v in self.answers.items() if k not in ("200", "202", "refused", "broken")}
        return [
            ("webhooks sent", f"{self.sent:,} in {self.seconds:.1f} s: {self.sent / self.seconds:.0f} a second"),
            ("and sent again in the end, as nobody had answered", f"{self.again:,}"),
            ("answered 2xx", f"{accepted:,} ({self.answers['200']:,} of them 200: sent before)"),
            (
                "answer, p50 / p99 / slowest",
                " / ".join(f"{quantile(self.taken_s, q):.1f}" for q in (0.5, 0.99, 1)) + " ms",
            ),
            ("nobody listened for", f"{self.down_s:.1f} s"),
            ("connections refused meanwhile", f"{self.answers['refused']:,}"),
            ("cut off by the kill, without an answer", f"{self.answers['broken']:,}"),
            ("answered otherwise", ", ".join(f"{v:,} of {k}" for k, v in sorted(other.items())) or "none"),
            ("all done after the last one", f"{self.emptied_s:.1f} s"),
            ("deliveries accepted / done", f"{len(self.accepted):,} / {self.done:,}"),
            ("issues that held a workdir and a session / hold one still", f"{self.meant:,} / {self.left:,}"),
            ("queued, noted or freed twice", f"{self.twice:,}"),
        ]


class Service:
    """The service in a process of its own, which may be killed.

    Args:
        folder: Where it keeps everything.
        environment: Its variables.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.log = folder / "service.log"
        self._folder, self._environment = folder, environment
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start it, at the port that it had before. Blocks until it takes connections."""
        command = [str(Path(sys.executable).with_name("everturn")), "serve", "--json", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, cwd=self._folder, stdout=subprocess.PIPE, stderr=log
            )
        if self._process.stdout is None or not (said := self._process.stdout.readline()):
            raise SystemExit(f"the service did not start: {self.log.read_text()[-500:]}")
        self.port = urlsplit(json.loads(said)["address"]).port or 0

    def kill(self) -> None:
        """Kill it, as the kernel does when memory is short."""
        self._process.kill()
        self._process.communicate()

    def stop(self) -> None:
        """Stop it in good order."""
        self._process.terminate()
        self._process.communicate(timeout=60)

    def events(self, name: str) -> Iterator[dict[str, Any]]:
        """Return the lines of its log of one event, of all its processes."""
        for line in self.log.read_bytes().splitlines():
            try:
                said = json.loads(line)
            except ValueError:  # cut off by the kill
                continue
            if said["event"] == name:
                yield said


class Client:
    """Sends webhooks, as many at a time as it has connections.

    Args:
        plan: What is sent.
        port: Where to.
        result: Where it is noted what came of it.
    """

    def __init__(self, plan: Plan, port: int, result: Result) -> None:
        self._plan, self._port, self._result = plan, port, result
        self._unanswered: list[int] = []

    async def send_all(self) -> None:
        """Send everything, each at its time."""
        self._result.seconds = await self._send(self._plan.delivery(place) for place in range(self._plan.count))

    async def send_again(self) -> None:
        """Send again what was not answered, as whoever looks after a forge can have it done."""
        again, self._unanswered = sorted(set(self._unanswered)), []
        self._result.again = len(again)
        await self._send(again)

    async def _send(self, deliveries: Iterable[int]) -> float:
        begun = time.perf_counter()
        due = iter(enumerate(deliveries))
        await asyncio.gather(*(self._send_some(due, begun) for _ in range(CONNECTIONS)))
        return time.perf_counter() - begun

    async def _send_some(self, due: Iterator[tuple[int, int]], begun: float) -> None:
        streams: Streams | None = None
        for place, delivery in due:
            await asyncio.sleep(begun + place / self._plan.rate - time.perf_counter())
            if streams is not None and streams[0].at_eof():
                await let_go(streams)
                streams = None
            request = request_of(f"delivery-{delivery}", self._plan.issue(delivery))
            sent_at = time.perf_counter()
            try:
                streams = streams or await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                self._result.answers["refused"] += 1
                self._unanswered.append(delivery)
                continue
            try:
                streams[1].write(request)
                status = await read_status(streams[0])
            except (OSError, asyncio.IncompleteReadError):
                self._result.answers["broken"] += 1
                self._unanswered.append(delivery)
                await let_go(streams)
                streams = None
                continue
            self._note(f"delivery-{delivery}", status, time.perf_counter() - sent_at)
        if streams is not None:
            await let_go(streams)

    def _note(self, delivery: str, status: str, seconds: float) -> None:
        self._result.answers[status] += 1
        self._result.taken_s.append(seconds)
        if status in ("200", "202"):
            self._result.accepted.add(delivery)
        if status == "202":
            self._result.queued[delivery] += 1


async def let_go(streams: Streams) -> None:
    """Close a connection, which may be broken."""
    streams[1].close()
    with suppress(OSError):
        await streams[1].wait_closed()


async def read_status(reader: asyncio.StreamReader) -> str:
    """Read an answer, and return its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = next(line for line in head.split("\r\n") if line.startswith("content-length:")).partition(":")[2]
    await reader.readexactly(int(length))
    return head.split(" ", 2)[1]


def request_of(delivery: str, issue: int) -> bytes:
    """Return what GitHub sends when an issue is closed."""
    repository = {"full_name": "acme/web", "clone_url": REPO, "html_url": REPO.removesuffix(".git")}
    said = {"number": issue, "title": "The roof leaks", "body": "It leaks. " * (TEXT_BYTES // 10)}
    body = json.dumps({"action": "closed", "issue": said, "repository": repository}).encode()
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    lines = [
        "POST /webhooks/github HTTP/1.1",
        "host: localhost",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "x-github-event: issues",
        f"x-github-delivery: {delivery}",
        f"x-hub-signature-256: sha256={signature}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def hold(settings: Settings, count: int) -> None:
    """Have that many issues hold a workdir and a session each."""
    parts = Parts.open(settings)
    for number in range(1, count + 1):
        work = WorkItem("fixer", REPO, number)
        parts.workshop.workdirs.open(work).close()
        holder = Holder("bench", f"{number:020x}")
        parts.registry.release(parts.registry.claim(work, holder, settings.store_url(), ttl_s=60))
    parts.close()


@contextmanager
def served(folder: Path, held: int) -> Iterator[tuple[Service, Settings]]:
    """Make all that is needed, start the service, and stop it."""
    make_repository(folder / "forge" / "acme" / "web.git", {"roof.txt": "it leaks\n"})
    config = folder / "gitconfig"
    config.write_text(f'[url "{folder}/forge/"]\n\tinsteadOf = {FORGE}/\n', encoding="utf-8")
    settings = Settings.load(state=folder / "state", store=(folder / "store").as_uri(), git_config_file=config)
    hold(settings, held)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "EVERTURN_STATE": str(folder / "state"),
        "EVERTURN_STORE": settings.store_url(),
        "EVERTURN_GIT_CONFIG_FILE": str(config),
        "EVERTURN_WEBHOOK_SECRETS": json.dumps({"github": SECRET}),
    }
    service = Service(folder, environment)
    try:
        yield service, settings
    finally:
        service.stop()


async def send(plan: Plan, service: Service, result: Result) -> None:
    """Send all webhooks, and kill the service in the middle."""
    client = Client(plan, service.port, result)
    sending = asyncio.create_task(client.send_all())
    await asyncio.sleep(plan.seconds / 2)
    killed_at = time.perf_counter()
    service.kill()
    await asyncio.to_thread(service.start)
    result.down_s = time.perf_counter() - killed_at
    await sending
    await client.send_again()


def wait_until_done(logbook: Path) -> float:
    """Wait until nothing is queued, and return how long that took."""
    begun = time.perf_counter()
    with closing(sqlite3.connect(logbook)) as book:
        while time.perf_counter() - begun < QUIET_S:
            if not book.execute("SELECT count(*) FROM deliveries WHERE done_at IS NULL").fetchone()[0]:
                return time.perf_counter() - begun
            time.sleep(0.05)
    raise SystemExit(f"not all was done within {QUIET_S:g} s")


def look(plan: Plan, settings: Settings, service: Service, result: Result) -> None:
    """See what the logbook, the log, the disk and the registry say."""
    with closing(sqlite3.connect(settings.logbook_path())) as book:
        rows = book.execute("SELECT delivery_id, state FROM deliveries").fetchall()
    result.rows, result.states = len(rows), dict(rows)
    result.freed.update(f"workdir {each['workdir']}" for each in service.events("workdir_removed"))
    result.freed.update(f"session {each['session_id']}" for each in service.events("dropped"))
    closed = {plan.issue(int(each.rpartition("-")[2])) for each in result.accepted}
    works = [WorkItem("fixer", REPO, number) for number in sorted(closed) if number < FIRST_UNHELD]
    parts = Parts.open(settings)
    held = [each for each in works if parts.workshop.workdirs.path(each).exists() or parts.registry.get(each)]
    parts.close()
    result.meant, result.left = len(works), len(held)


def measure(plan: Plan, folder: Path) -> Result:
    """Do all of it, and return what came of it.

    Args:
        plan: What is sent.
        folder: Where to work.
    """
    result = Result()
    with served(folder, plan.held) as (service, settings):
        asyncio.run(send(plan, service, result))
        result.emptied_s = wait_until_done(settings.logbook_path())
    look(plan, settings, service, result)
    return result


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rate", type=int, default=Plan.rate)
    parser.add_argument("--seconds", type=float, default=Plan.seconds)
    parser.add_argument("--held", type=int, default=Plan.held)
    parser.add_argument("--folder", type=Path, help="where to work; default: the system's folder for temporary files")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="everturn-bench-", dir=given.folder) as folder:
        result = measure(Plan(given.rate, given.seconds, given.held), Path(folder).resolve())
    for name, value in result.table():
        print(f"{name:60} {value}")
    print(f"every accepted delivery was done exactly once: {'yes' if result.is_right else 'NO'}")
    sys.exit(not result.is_right)


if __name__ == "__main__":
    main()
