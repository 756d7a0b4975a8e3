"""Reading a log: everything or an error, never some of it (docs/format.md, section 6)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from everturn.errors import Corrupt
from everturn.log.format import Part, decode
from everturn.log.names import Span, parse_file_name
from everturn.log.objects import Objects

LISTINGS = 4
RELIST_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Log:
    """What a read found.

    Attributes:
        folder: Where it was read.
        parts: The parts and segments that make up the log, in order, from its start or its last truncation on.
        tail: The last number that is taken; 0 if none is.
    """

    folder: str
    parts: tuple[Part, ...]
    tail: int

    @property
    def exists(self) -> bool:
        """Whether anything was written since the log was last deleted. A fence alone does not count."""
        return any(part.header.count for part in self.parts)

    def entries(self, after: int = 0) -> list[Any]:
        """Return the entries in order, without those whose `uuid` came before.

        Args:
            after: Leave out the parts up to this number.

        Raises:
            Corrupt: A part's lines are not the JSON that its header promises. Names the part.
        """
        seen: set[str] = set()
        kept: list[Any] = []
        for part in self.parts:
            for entry in self._entries_of(part, after):
                uuid = entry.get("uuid") if type(entry) is dict else None
                if type(uuid) is str:
                    if uuid in seen:
                        continue
                    seen.add(uuid)
                kept.append(entry)
            after = max(after, part.header.span.last)  # segments may overlap
        return kept

    def _entries_of(self, part: Part, after: int) -> list[Any]:
        try:
            return part.entries_after(after)
        except Corrupt as error:
            raise _damaged(self.folder, part.header.span, error) from None


async def read(objects: Objects, folder: str) -> Log:
    """Read a whole log. Reading writes nothing and disturbs no writer.

    Args:
        objects: Where the log is.
        folder: The log's folder.

    Raises:
        Corrupt: A part is damaged, or a number is missing and stays missing. Names the object.
        Unavailable: The store did not answer.
    """
    problem = ""
    for attempt in range(LISTINGS):
        if attempt:  # a listing can be older at its end than at its start: look again before judging
            await objects.wait(RELIST_PAUSE_S * 2**attempt)
        spans = await list_spans(objects, folder)
        runs = _runs(_uncovered(spans))
        if not runs:
            return Log(folder, (), 0)
        parts, missing = await _fetch(objects, folder, runs[-1])
        if missing is not None:
            problem = f"{folder}/{missing.file_name} was listed, but it is gone"
            continue
        start = _after_truncation(parts)
        if start is None and runs[-1][0].first == 1:
            start = 0
        if start is not None:
            return Log(folder, tuple(parts[start:]), runs[-1][-1].last)
        problem = f"{folder} has no part {runs[-1][0].first - 1}"
    raise Corrupt(
        f"the log has a hole: {problem}",
        hint="restore the object; what comes after it is not shown without it",
    )


async def list_spans(objects: Objects, folder: str) -> list[Span]:
    """Return what the objects of a log cover, in order."""
    found = [parse_file_name(item.key.rsplit("/", 1)[-1]) for item in await objects.listing(folder)]
    return sorted(span for span in found if span is not None)


async def read_part(objects: Objects, folder: str, span: Span) -> Part | None:
    """Fetch and verify one part or segment, or return `None` if it is not there."""
    stored = await objects.get(f"{folder}/{span.file_name}")
    return None if stored is None else _decode(stored.data, folder, span)


def _decode(data: bytes, folder: str, span: Span) -> Part:
    try:
        return decode(data, span)
    except Corrupt as error:
        raise _damaged(folder, span, error) from None


def _damaged(folder: str, span: Span, error: Corrupt) -> Corrupt:
    return Corrupt(f"{folder}/{span.file_name} is damaged: {error.message}", hint=error.hint)


async def _fetch(objects: Objects, folder: str, run: Sequence[Span]) -> tuple[list[Part], Span | None]:
    stored = await objects.get_many([f"{folder}/{span.file_name}" for span in run])
    parts: list[Part] = []
    for span, object_ in zip(run, stored, strict=True):
        if object_ is None:
            return [], span
        parts.append(_decode(object_.data, folder, span))
    return parts, None


def _uncovered(spans: Iterable[Span]) -> list[Span]:
    """Choose the fewest spans: the longest at each place, and nothing that one of them covers."""
    chosen: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.first, -span.last, not span.segment)):
        if chosen and span.last <= chosen[-1].last:
            continue
        chosen.append(span)
    return chosen


def _runs(spans: Sequence[Span]) -> list[list[Span]]:
    """Split spans where a number is missing between them."""
    runs: list[list[Span]] = []
    for span in spans:
        if runs and span.first <= runs[-1][-1].last + 1:
            runs[-1].append(span)
        else:
            runs.append([span])
    return runs


def _after_truncation(parts: Sequence[Part]) -> int | None:
    """Return the index of the first object that counts after the last truncation, or `None` without one."""
    for index in range(len(parts) - 1, -1, -1):
        if parts[index].truncated_parts:
            return index
        if parts[index].header.kind == "truncate":
            return index + 1
    return None
