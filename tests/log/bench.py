"""A log on a store in memory whose time is turned by hand, and what the tests of the log do with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from obstore.store import MemoryStore

from everturn.clock import Ids, ManualClock
from everturn.log.format import Header, Kind, Part, encode_part, encode_segment
from everturn.log.names import Span, part
from everturn.log.objects import BlockingObjects, run
from everturn.log.reader import Log, read, read_part
from everturn.log.writer import LogWriter
from everturn.testing.faults import Fault, FaultyObjects

DAY_S = 86_400.0
FOLDER = "sessions/scope/project/session/main"


class Recorder:
    """An `Observer` that keeps what it is told."""

    def __init__(self) -> None:
        self.written: list[Header] = []
        self.others: list[Header | None] = []
        self.failures: list[Exception] = []

    def wrote(self, folder: str, header: Header, size_bytes: int, seconds: float) -> None:
        self.written.append(header)

    def passed(self, folder: str, other: Header | None) -> None:
        self.others.append(other)

    def failed(self, folder: str, count: int, error: Exception) -> None:
        self.failures.append(error)


class Bench:
    """One log, its writers, and the faults of its store."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.objects = FaultyObjects(BlockingObjects(MemoryStore(), "memory://", self.clock))
        self.recorder = Recorder()
        self._seeds = count(1)

    def fault(self, *faults: Fault) -> None:
        """Let these things go wrong from here on."""
        self.objects.faults.extend(faults)

    def writer(self, epoch: int = 0) -> LogWriter:
        """Return a writer. A claimed one is not open yet."""
        return LogWriter(
            self.objects,
            FOLDER,
            clock=self.clock,
            ids=Ids(next(self._seeds)),
            observer=self.recorder,
            epoch=epoch,
            writer=f"writer of epoch {epoch}",
            deadline_s=20.0,
        )

    def opened(self, epoch: int) -> LogWriter:
        """Return a claimed writer that is open."""
        writer = self.writer(epoch)
        run(writer.open())
        return writer

    def read(self) -> Log:
        return run(read(self.objects, FOLDER))

    def entries(self) -> list[Any]:
        return self.read().entries()

    def headers(self) -> list[Header]:
        return [part.header for part in self.read().parts]

    def part(self, seq: int) -> Part:
        """Return a part that is there."""
        found = run(read_part(self.objects, FOLDER, part(seq)))
        assert found is not None
        return found

    def files(self) -> list[str]:
        """Return the names of the log's objects."""
        return sorted(item.key.removeprefix(f"{FOLDER}/") for item in run(self.objects.listing(FOLDER)))

    def put_bytes(self, file_name: str, data: bytes) -> None:
        run(self.objects.put(f"{FOLDER}/{file_name}", data))

    def get_bytes(self, file_name: str) -> bytes:
        stored = run(self.objects.get(f"{FOLDER}/{file_name}"))
        assert stored is not None
        return stored.data

    def put_part(self, seq: int, *entries: Any, kind: Kind = "data", epoch: int = 0) -> None:
        """Lay down a part as some other writer would."""
        _, data = encode_part(seq, entries, epoch=epoch, writer="another", write_id=f"{seq:016x}", kind=kind)
        self.put_bytes(part(seq).file_name, data)

    def compact(self, first: int, last: int, *, keep: Sequence[int] = ()) -> None:
        """Write the segment of these parts and, a day later, delete what it covers, but for those to keep."""
        parts = [self.part(seq) for seq in range(first, last + 1)]
        data = encode_segment(parts, writer="compactor", write_id="c" * 16)
        self.put_bytes(Span(first, last, segment=True).file_name, data)
        self.clock.advance(DAY_S)
        self.delete(*(seq for seq in range(first, last + 1) if seq not in keep))

    def segment(self, first: int, last: int) -> None:
        """Write the segment of these parts, and keep them."""
        parts = [self.part(seq) for seq in range(first, last + 1)]
        data = encode_segment(parts, writer="compactor", write_id="c" * 16)
        self.put_bytes(Span(first, last, segment=True).file_name, data)

    def objects_delete(self, file_name: str) -> None:
        run(self.objects.delete([f"{FOLDER}/{file_name}"]))

    def after_next(self, operation: str, act: Callable[[], object]) -> None:
        """Do something right after the next request of this kind has taken effect."""
        whole = getattr(self.objects, operation)

        async def once(*arguments: Any) -> Any:
            setattr(self.objects, operation, whole)
            result = await whole(*arguments)
            act()
            return result

        setattr(self.objects, operation, once)

    def delete(self, *seqs: int) -> None:
        run(self.objects.delete([f"{FOLDER}/{part(seq).file_name}" for seq in seqs]))

    def delete_log(self) -> None:
        """Append a truncation and, a day later, delete everything before it."""
        before = self.files()
        run(self.writer().truncate())
        self.clock.advance(DAY_S)
        run(self.objects.delete([f"{FOLDER}/{name}" for name in before]))
