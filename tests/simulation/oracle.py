"""What is promised, and the checks of it. The oracle sees every effect at the store at the moment it happens.

*The canonical log.* The first object that was ever created at number *k* is part *k* for ever, whatever is
compacted, deleted or created again later. The state after part *p* is: the entries of the parts after the last
truncation up to *p*, without those whose `uuid` came before. The oracle keeps this from the effects alone, with
no help from the reader under test.

*I1 and I2.* Reads and appends are linearizable. A read is the log as of one moment between its beginning and its
end: it returns exactly the state after some part *p*, where *p* is not less than the last number that was taken
when the read began, and not more than the last one that was taken when it ended. An acknowledged batch is the
canonical part of the number that the append returned. From the two it follows that an acknowledged entry is in
every read that begins after the acknowledgement, unless a truncation came after it; that all reads are prefixes
of one order; and that a read that begins after another has ended never shows an earlier state. Numbers are taken
one by one, and the batches of one writer stand in the order in which it was given them.

*I3.* No state holds a `uuid` twice (part of the above), and no batch, with or without uuids, stands twice between
two truncations, however often its writer tried.

*I4.* When a claim of epoch *e* has loaded, no part with entries of an epoch from 1 to *e* - 1 is taken into the
canonical log any more, and none stands there that the load did not return. Where two claims have the same epoch, no
part with entries of the one whose fence came first stands behind the fence of the other.

*I5.* After every effect of anybody at the store, what a perfect reader would find there is the canonical state:
every number from the last truncation on is in a segment or in its canonical part, and segments hold what their
parts held.

*I6.* Without rot, nobody is told `Corrupt`. With rot, a read is right or raises `Corrupt`; if what it needs was
damaged before it began, it raises.

*Deletion.* A deletion that has returned has truncated everything that was in the log when it began. A claim that
was opened before a truncation writes nothing behind it. When all is quiet, nothing that was deleted is left in
the store; that is checked where nobody died or gave up half way and nothing arrived late, as nobody can tidy up
after that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from everturn.errors import Corrupt
from everturn.log.format import Header, Part, decode
from everturn.log.names import Span, parse_file_name, part
from everturn.log.objects import run
from everturn.log.reader import ERASED, Log, read
from simulation.store import FOLDER, Perfect, Store

Trace = list[tuple[float, str, str, str, str]]


class Violation(AssertionError):
    """A promise was broken.

    Args:
        promise: Which one: I1 to I6.
        what: How.
    """

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(f"{promise}: {what}")
        self.promise = promise
        self.what = what

    def told(self, seed: int, operations: int, trace: Trace) -> Violation:
        """Return the violation with where it happened and what came before it."""
        lines = [f"{at:12.3f}  {who:<12} {what:<7} {where:<34} {result}" for at, who, what, where, result in trace]
        return Violation(
            self.promise,
            "\n".join(
                [
                    self.what,
                    f"seed {seed}, request {operations}; the last events:",
                    *lines,
                    f"To see it again: make simulate SEED={seed}",
                ]
            ),
        )


@dataclass(frozen=True)
class Batch:
    """A batch that some writer was given."""

    number: int
    writer: str
    entries: list[dict[str, Any]]


@dataclass(frozen=True)
class Canonical:
    """A part of the canonical log."""

    header: Header
    data: bytes
    lines: bytes
    batch: int | None


@dataclass
class _Life:
    """What came between two truncations: the states after each of its parts.

    Attributes:
        start: The first number.
        entries: The entries without repeated uuids.
        upto: How many of them there are after each part.
    """

    start: int
    entries: list[Any] = field(default_factory=list)
    upto: list[int] = field(default_factory=list)
    uuids: set[str] = field(default_factory=set)
    batches: set[int] = field(default_factory=set)
    claims: set[int] = field(default_factory=set)
    latest: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Begun:
    """When a read began: the last number that was taken then, and whether what was needed then was damaged."""

    tail: int
    damaged: bool


class Oracle:
    """The judge of one world.

    Args:
        store: What it judges. It only looks.
        counts: Where it counts what it saw.
    """

    def __init__(self, store: Store, counts: Counter[str]) -> None:
        self._store = store
        self._perfect = Perfect(store)
        self._counts = counts
        self._parts: list[Canonical] = []
        self._lives = [_Life(1)]
        self._batches: dict[int, Batch] = {}
        self._loaded = 0
        self._openers: dict[int, str] = {}
        self._segments: dict[Span, bytes] = {}
        self._rotten = False
        self._cleared = 0
        self._hopeless: set[int] = set()

    # --- What actors tell ---------------------------------------------------------------------------------------

    def given(self, writer: str, entries: list[dict[str, Any]]) -> Batch:
        """Note a batch that a writer is given to append. Marks its entries with the batch's number."""
        batch = Batch(len(self._batches) + 1, writer, entries)
        for entry in entries:
            entry["batch"] = batch.number
        self._batches[batch.number] = batch
        return batch

    def acknowledged(self, batch: Batch, seq: int) -> None:
        """Check an append that has returned."""
        self._counts["acknowledged"] += 1
        if seq > self.tail or self._parts[seq - 1].batch != batch.number:
            raise Violation("I1", f"{batch.writer} was told that batch {batch.number} is part {seq}, and it is not")

    def begun(self) -> Begun:
        """Note that a read begins."""
        return Begun(self.tail, self._rotten and not self._is_whole())

    def ended(self, who: str, begun: Begun, log: Log, entries: Sequence[Any]) -> None:
        """Check what a read has returned."""
        self._counts["reads"] += 1
        if begun.damaged and not self._is_whole():
            raise Violation("I6", f"{who} read a damaged log and was not told")
        if not begun.tail <= log.tail <= self.tail:
            raise Violation(
                "I1", f"{who} read up to {log.tail}; the log went to {begun.tail} before and to {self.tail} after"
            )
        expected = self._state(log.tail)
        if entries != expected:
            raise Violation(self._kind_of(entries), f"{who} read up to {log.tail} {_difference(entries, expected)}")

    def refused(self, who: str, error: Corrupt) -> None:
        """Check that somebody was told of damage."""
        if not self._rotten:
            raise Violation("I6", f"{who} was told of damage where there is none: {error}")
        self._counts["damage reported"] += 1

    def loaded(self, who: str, epoch: int, begun: Begun, log: Log, entries: Sequence[Any]) -> None:
        """Check the load of a claim, and remember it."""
        for later in self._parts[log.tail :]:
            if 1 <= later.header.epoch < epoch and later.header.count and not self._rotten:
                raise Violation(
                    "I4", f"{who} loaded up to {log.tail}, and part {later.header.span.first} is of an older claim"
                )
        self.ended(who, begun, log, entries)
        self._counts["takeovers"] += self._loaded > 0
        self._loaded = max(self._loaded, epoch)

    def deleted(self, who: str, begun: Begun) -> None:
        """Check a deletion that has returned."""
        self._counts["deletions"] += 1
        if begun.tail and self._lives[-1].start <= begun.tail:
            raise Violation("deletion", f"{who} has deleted the log, and part {begun.tail} is still there")
        self._cleared = self._lives[-1].start - 1

    # --- What happens at the store --------------------------------------------------------------------------------

    def created(self, who: str, key: str, data: bytes) -> None:
        """Check an object that was created."""
        span = _span(key)
        decoded = decode(data, span)
        if span.segment:
            self._new_segment(who, decoded)
        elif span.first <= self.tail:
            self._counts["freed numbers taken"] += 1
            self._check_whole(who, span)
        else:
            self._new_part(who, decoded, data)

    def changed(self, who: str, key: str) -> None:
        """Check an object that was written over or deleted."""
        span = _span(key)
        blob = self._store.blobs.get(key)
        if span.segment:
            self._counts["segments freed"] += 1
        elif blob is None:
            self._counts["parts freed"] += 1
        if blob is not None and decode(blob.data, span).header.write_id != ERASED:
            raise Violation("I5", f"{who} wrote over {span.file_name}")
        self._check_copies(who, span)
        if span.last > self.tail:
            raise Violation("I5", f"{who} wrote over or deleted {span.file_name}, which nobody had created")
        self._check_whole(who, span)
        self._read_perfectly(who, span)

    def at_rest(self) -> None:
        """Check that nothing deleted is left, when all is quiet and nothing has gone wrong."""
        for key, blob in self._store.blobs.items():
            header = decode(blob.data, _span(key)).header
            if header.span.last < self._cleared and header.write_id != ERASED and header.count:
                raise Violation("deletion", f"{header.span.file_name} was deleted and is still in the store")

    def rotted(self) -> None:
        """Note that an object was damaged or lost."""
        self._rotten = True
        needed = range(self._first_needed, self.tail + 1)
        self._hopeless |= {seq for seq in needed if not self._whole_copies(seq)}

    # --- The canonical log ----------------------------------------------------------------------------------------

    @property
    def tail(self) -> int:
        """The last number that was taken."""
        return len(self._parts)

    def noticeable(self) -> list[str]:
        """Return the keys of objects that a read needs, and whose loss it can notice: not the last of the log."""
        spans = {key: _span(key) for key in self._store.blobs}
        return sorted(key for key, span in spans.items() if self._is_needed(span, list(spans.values())))

    def spare(self) -> list[str]:
        """Return the keys of segments whose loss would harm nothing."""
        return sorted(
            _key(span)
            for span in self._segments
            if _key(span) in self._store.blobs
            and all(_key(part(seq)) in self._store.blobs for seq in range(span.first, span.last + 1))
        )

    def _is_needed(self, span: Span, spans: list[Span]) -> bool:
        alone = [
            seq
            for seq in range(max(span.first, self._first_needed), span.last + 1)
            if not any(_covers(other, seq) for other in spans if other != span)
        ]
        return bool(alone) and self.tail not in alone

    @property
    def truth(self) -> list[Any]:
        """What a read should return now."""
        return self._state(self.tail)

    def _new_part(self, who: str, found: Part, data: bytes) -> None:
        header = found.header
        seq = header.span.first
        if seq != self.tail + 1:
            raise Violation("I2", f"{who} took number {seq} when {self.tail} was the last")
        if 1 <= header.epoch < self._loaded and header.count and not self._rotten:
            raise Violation("I4", f"{who} of epoch {header.epoch} wrote part {seq} after {self._loaded} had loaded")
        self._check_claim(who, header)
        self._counts[f"parts: {header.kind}"] += 1
        entries = found.entries()
        batch = entries[0]["batch"] if entries else None
        self._parts.append(Canonical(header, data, b"".join(found.pieces()), batch))
        if header.kind == "truncate":
            self._lives[-1].upto.append(0)
            self._lives.append(_Life(seq + 1))
            return
        self._grow(who, seq, entries)

    def _check_claim(self, who: str, header: Header) -> None:
        life = self._lives[-1]
        if header.kind == "fence":
            life.claims.add(header.epoch)
            self._openers[header.epoch] = header.writer
        elif header.kind == "data" and self._openers.get(header.epoch, who) != who and not self._rotten:
            raise Violation("I4", f"{who} wrote behind the fence of {self._openers[header.epoch]}, an equal claim")
        elif header.kind == "data" and header.epoch and len(self._lives) > 1 and header.epoch not in life.claims:
            raise Violation("deletion", f"{who} opened the log before it was deleted, and wrote to it afterwards")

    def _grow(self, who: str, seq: int, entries: list[Any]) -> None:
        life = self._lives[-1]
        if entries:
            batch = self._batches[entries[0]["batch"]]
            if batch.entries != entries:
                raise Violation("I1", f"part {seq} is not what {batch.writer} was given as batch {batch.number}")
            if batch.number in life.batches and not self._rotten:
                raise Violation("I3", f"{who} wrote batch {batch.number} a second time, as part {seq}")
            if life.latest.get(batch.writer, 0) > batch.number:
                raise Violation("I2", f"{who} wrote batch {batch.number} after a later one, as part {seq}")
            life.batches.add(batch.number)
            life.latest[batch.writer] = batch.number
        for entry in entries:
            uuid = entry.get("uuid")
            if uuid is None or uuid not in life.uuids:
                life.entries.append(entry)
            if uuid is not None:
                life.uuids.add(uuid)
        life.upto.append(len(life.entries))

    def _state(self, upto: int) -> list[Any]:
        if not upto:
            return []
        life = self._lives[bisect_right(self._lives, upto, key=lambda life: life.start) - 1]
        if self._parts[upto - 1].header.kind == "truncate":
            return []
        return life.entries[: life.upto[upto - life.start]]

    # --- The store against the canonical log ----------------------------------------------------------------------

    def _new_segment(self, who: str, found: Part) -> None:
        span = found.header.span
        parts = self._parts[span.first - 1 : span.last]
        notes = tuple(
            (each.header.epoch, each.header.write_id, each.header.count, each.header.kind) for each in parts
        )
        kept = parts[found.truncated_parts :]
        if found.header.parts != notes or b"".join(found.pieces()) != b"".join(each.lines for each in kept):
            raise Violation("I5", f"{who} wrote {span.file_name}, which is not what its parts hold")
        self._segments[span] = self._store.blobs[_key(span)].data
        self._counts["segments"] += 1
        self._check_whole(who, span)
        self._read_perfectly(who, span)

    def _check_whole(self, who: str, span: Span) -> None:
        if self._rotten:
            return
        for seq in range(max(span.first, self._first_needed), span.last + 1):
            if not self._is_there(seq):
                raise Violation("I5", f"after {who} touched {span.file_name}, part {seq} is not there to be read")

    def _read_perfectly(self, who: str, span: Span) -> None:
        """Let the real reader read the log while the world stands still."""
        if self._rotten:
            return
        try:
            found = run(read(self._perfect, FOLDER)).entries()
        except Corrupt as error:
            raise Violation("I5", f"after {who} touched {span.file_name}, a perfect reader finds: {error}") from error
        if found != self.truth:
            difference = _difference(found, self.truth)
            raise Violation("I5", f"after {who} touched {span.file_name}, a perfect reader {difference}")

    def _check_copies(self, who: str, span: Span) -> None:
        """Check, where there is rot, that nobody frees the last copy that was whole."""
        if not self._rotten:
            return
        for seq in range(max(span.first, self._first_needed), span.last + 1):
            if seq not in self._hopeless and not self._whole_copies(seq):
                raise Violation("I5", f"{who} freed the last whole copy of part {seq}, {span.file_name}")

    def _whole_copies(self, seq: int) -> bool:
        blobs = self._store.blobs
        alone = blobs.get(_key(part(seq)))
        return (alone is not None and alone.data == self._parts[seq - 1].data) or any(
            blobs[_key(span)].data is data
            for span, data in self._segments.items()
            if _covers(span, seq) and _key(span) in blobs
        )

    def _is_whole(self) -> bool:
        return all(self._is_there(seq) for seq in range(self._first_needed, self.tail + 1))

    @property
    def _first_needed(self) -> int:
        return max(1, self._lives[-1].start - 1)

    def _is_there(self, seq: int) -> bool:
        """Tell whether a perfect reader finds this number: in the widest object that covers it, unharmed."""
        blobs = self._store.blobs
        covering = [span for span in self._segments if _covers(span, seq) and _key(span) in blobs]
        if covering:
            widest = [span for span in covering if not any(_inside(span, other) for other in covering)]
            return all(blobs[_key(span)].data is self._segments[span] for span in widest)
        blob = blobs.get(_key(part(seq)))
        return blob is not None and blob.data == self._parts[seq - 1].data

    def _kind_of(self, entries: Sequence[Any]) -> str:
        uuids = [entry["uuid"] for entry in entries if "uuid" in entry]
        if len(uuids) != len(set(uuids)):
            return "I3"
        return "I6" if self._rotten else "I2"


def _covers(span: Span, seq: int) -> bool:
    return span.first <= seq <= span.last


def _inside(span: Span, other: Span) -> bool:
    return span != other and other.first <= span.first and span.last <= other.last


def _span(key: str) -> Span:
    span = parse_file_name(key.removeprefix(f"{FOLDER}/"))
    assert span is not None, key
    return span


def _key(span: Span) -> str:
    return f"{FOLDER}/{span.file_name}"


def _difference(found: Sequence[Any], expected: Sequence[Any]) -> str:
    at = next((i for i, (one, other) in enumerate(zip(found, expected, strict=False)) if one != other), None)
    if at is None:
        return f"and got {len(found)} entries where there are {len(expected)}"
    return f"and got {found[at]} where there is {expected[at]}"
