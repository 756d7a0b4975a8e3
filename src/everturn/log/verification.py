"""Checking a log: what is missing, damaged or contradictory, each thing by its name (docs/repair.md).

A read stops at the first thing it cannot trust. This goes on to the end and finds them all. It writes nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from everturn.log.names import Span
from everturn.log.objects import Objects
from everturn.log.reader import uncovered
from everturn.log.stock import Held, Row, Stock, gaps, take_stock

Severity = Literal["damage", "warning", "info"]

REPAIR = (
    "everturn sessions repair, with --from and a local transcript, or with --accept-loss if there is none"
    " (docs/repair.md)"
)
LEAVE = "nothing has to be done"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check has found.

    Attributes:
        severity: `damage`: something is missing, unreadable or contradictory. `warning`: it can be read as it is, but
            something is not as it should be. `info`: good to know.
        kind: One word for it; docs/repair.md lists them.
        key: The object or folder it is about.
        message: One sentence.
        advice: What to do.
        number: The number in the log, where there is one.
    """

    severity: Severity
    kind: str
    key: str
    message: str
    advice: str
    number: int | None = None


@dataclass(frozen=True)
class LogReport:
    """What a check of one log has found.

    Attributes:
        stock: What lies in the log's folder.
        rows: Its numbers as far as they can be read, in order.
        findings: What is not as it should be.
        wrong_segments: Segments that contradict what they were made from.
    """

    stock: Stock
    rows: tuple[Row, ...] = ()
    findings: tuple[Finding, ...] = ()
    wrong_segments: frozenset[Span] = field(default_factory=frozenset)

    @property
    def exists(self) -> bool:
        """Whether there is anything in it for a reader, or would be if it were whole."""
        return any(row.entries for row in self.rows) or self.is_damaged

    @property
    def is_damaged(self) -> bool:
        """Whether something is missing, unreadable or contradictory."""
        return any(finding.severity == "damage" for finding in self.findings)


async def verify_log(objects: Objects, folder: str) -> LogReport:
    """Check a log. Everything that lies in its folder is read.

    Args:
        objects: Where it is.
        folder: Its folder.

    Raises:
        Unavailable: The store did not answer.
    """
    return check_stock(await take_stock(objects, folder))


def check_stock(stock: Stock) -> LogReport:
    """Check what lies in a log's folder. Pure."""
    rows = tuple(stock.rows())
    disagreements = dict(_disagreements(stock))
    findings = [
        *_holes(stock),
        *_damaged(stock),
        *_locked(stock),
        *disagreements.values(),
        *_late(stock, rows),
        *_epochs(stock, rows),
        *_duplicates(stock, rows),
        *_foreign(stock),
        *_leftovers(stock),
        *_repaired(stock),
    ]
    return LogReport(stock, rows, tuple(findings), frozenset(disagreements))


def numbers(span: Span) -> str:
    """Return a run of numbers as people say it."""
    return f"number {span.first}" if span.first == span.last else f"numbers {span.first} to {span.last}"


def _holes(stock: Stock) -> Iterator[Finding]:
    for gap in stock.unlisted:
        verb = "is" if gap.first == gap.last else "are"
        message = f"{numbers(gap)} {verb} missing; readers refuse the log"
        yield Finding("damage", "hole", stock.folder, message, REPAIR, gap.first)


def _damaged(stock: Stock) -> Iterator[Finding]:
    taken = set(uncovered(stock.items))
    for span, why in sorted(stock.damaged.items()):
        key = stock.key(span)
        if span.last < stock.start:
            message = f"it is damaged, but stands before a deletion, so nobody reads it: {why}"
            yield Finding("info", "leftover", key, message, LEAVE, span.first)
        elif span in taken or gaps(stock.held, max(span.first, stock.start), span.last):
            message = f"it is damaged; readers refuse the log: {why}"
            yield Finding("damage", "damaged", key, message, REPAIR, span.first)
        else:
            message = f"it is damaged, but a segment holds what it held: {why}"
            advice = "it does no harm; everturn sessions repair, or a compaction, takes it away"
            yield Finding("warning", "damaged", key, message, advice, span.first)


def _locked(stock: Stock) -> Iterator[Finding]:
    for span, error in sorted(stock.locked.items()):
        yield Finding(
            "damage", "locked", stock.key(span), f"it cannot be opened: {error.message}", error.hint, span.first
        )


def _disagreements(stock: Stock) -> Iterator[tuple[Span, Finding]]:
    """Compare each segment with what else stands for its numbers. One finding a segment: the first thing wrong.

    Parts are what writers were told is durable, so they come first: a segment that contradicts one is out, and says
    nothing against other segments.
    """
    parts = sorted(span for span in stock.held if not span.segment and span.first >= stock.start)
    firsts = [span.first for span in parts]
    trusted: list[Span] = []
    for span in sorted(span for span in stock.held if span.segment and span.last >= stock.start):
        inside = parts[bisect_left(firsts, span.first) : bisect_right(firsts, span.last)]
        told = _told_wrong(stock, span, inside)
        if told is None:
            trusted.append(span)
        else:
            yield span, told
    for index, span in enumerate(trusted):
        told = _told_wrong(stock, span, [other for other in trusted[index + 1 :] if other.first <= span.last])
        if told is not None:
            yield span, told


def _told_wrong(stock: Stock, span: Span, others: Iterable[Span]) -> Finding | None:
    for other in others:
        found = _contradiction(stock, stock.held[span], stock.held[other])
        if found is not None:
            seq, what = found
            message = f"it says something else than {other.file_name} of number {seq}: {what}"
            advice = "everturn sessions repair takes a wrong segment away if all that it holds stands elsewhere"
            return Finding("damage", "disagreement", stock.key(span), message, advice, seq)
    return None


def _contradiction(stock: Stock, one: Held, other: Held) -> tuple[int, str] | None:
    first = max(one.span.first, other.span.first, stock.start)
    for seq in range(first, min(one.span.last, other.span.last) + 1):
        left, right = one.note(seq), other.note(seq)
        if left[1] != right[1] and _is_late(one, other):
            continue
        for name, ours, theirs in zip(("epochs", "write ids", "counts", "kinds"), left, right, strict=True):
            if ours != theirs:
                return seq, f"the {name} are {ours} and {theirs}"
        if one.of_number(seq) != other.of_number(seq):
            return seq, "the entries differ"
    return None


def _is_late(segment: Held, part: Held) -> bool:
    """Tell whether a part took a number that was taken before, compacted and freed: by a writer that had stalled."""
    return not part.span.segment and part.modified_ms > segment.modified_ms


def _late(stock: Stock, rows: tuple[Row, ...]) -> Iterator[Finding]:
    known = {row.note[1] for row in rows}
    for held in stock.held.values():
        header = held.part.header
        if header.write_id in known or not any(_is_late(segment, held) for segment in _segments_over(stock, held)):
            continue
        message = f"a writer that had stalled took this freed number; readers pass over its {header.count} entries"
        advice = "it was never acknowledged under this number; compaction takes it away"
        yield Finding("warning", "late", stock.key(held.span), message, advice, held.span.first)


def _segments_over(stock: Stock, held: Held) -> list[Held]:
    seq = held.span.first
    over = (
        other for other in stock.held.values() if other.span.segment and other.span.first <= seq <= other.span.last
    )
    return [] if seq < stock.start else list(over)


def _epochs(stock: Stock, rows: tuple[Row, ...]) -> Iterator[Finding]:
    """Find what an older claim wrote after a newer one. A fence alone is none: a late claim learns of it that way."""
    highest = stock.start_epoch
    for row in rows:
        epoch = row.note[0]
        if 0 < epoch < highest and row.note[3] != "fence":
            message = f"it was written by claim {epoch}, though claim {highest} had taken over before"
            advice = "what claim it belongs to is doubtful; read the transcript from here with care"
            yield Finding("warning", "epoch", stock.key(row.span), message, advice, row.seq)
        highest = max(highest, epoch)


def _duplicates(stock: Stock, rows: tuple[Row, ...]) -> Iterator[Finding]:
    seen: set[str] = set()
    again: list[tuple[Row, str]] = []
    for row in rows:
        for entry in row.entries:
            uuid = entry.get("uuid") if type(entry) is dict else None
            if type(uuid) is str:
                if uuid in seen:
                    again.append((row, uuid))
                seen.add(uuid)
    if again:
        row, uuid = again[0]
        what = (
            "1 entry has a uuid that came before"
            if len(again) == 1
            else f"{len(again)} entries have uuids that came before"
        )
        message = f"{what} ({uuid} is the first); readers keep the first of each"
        yield Finding("info", "duplicate", stock.key(row.span), message, LEAVE, row.seq)


def _foreign(stock: Stock) -> Iterator[Finding]:
    for key in sorted(stock.foreign):
        message = "its name is not one of ours; readers pass over it"
        yield Finding("warning", "foreign", key, message, "find out who put it here, and move it away")


def _leftovers(stock: Stock) -> Iterator[Finding]:
    before = [span for span in stock.held if span.last < stock.start - 1]
    if before:
        objects = "1 object stands" if len(before) == 1 else f"{len(before)} objects stand"
        message = f"{objects} before the last deletion; readers pass over them"
        advice = "deleting the session again takes them away"
        yield Finding("info", "leftover", stock.folder, message, advice, before[0].first)


def _repaired(stock: Stock) -> Iterator[Finding]:
    for span in uncovered(span for span in stock.held if span.last >= stock.start):
        how = stock.held[span].part.header.repaired
        if how == "lost":
            message = f"{numbers(span)} were lost, and somebody agreed to that"
            yield Finding("info", "repaired", stock.key(span), message, LEAVE, span.first)
        elif how:
            message = f"{numbers(span)} were restored from a local transcript"
            yield Finding("info", "repaired", stock.key(span), message, LEAVE, span.first)
