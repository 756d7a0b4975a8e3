"""Laying a local transcript beside what the store has, to tell what is missing. Pure.

Entries are the same if they have the same `uuid` or, where one has none, if they are equal. Many entries have none,
and look alike ("mode", "cost-state"), so whatever is taken from a local transcript has to lie between neighbours that
the store has too. Where that is not certain, nothing is taken.

A local transcript is not the stored one line by line: the agent command keeps some notes to itself, and a store has
some that the file has not. Those are left out on both sides.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from everturn.errors import Invalid
from everturn.transcripts.marks import METADATA, NOT_MIRRORED, Mark, is_said, mark, type_of, uuid_of

Entry = TypeVar("Entry")

HINT = "is it the transcript of this session, and of this sub-transcript? if there is no better one: --accept-loss"


@dataclass(frozen=True, slots=True)
class Alignment:
    """How a local transcript lies beside the stored one.

    Attributes:
        after: Local entries after the last one that the store has: they can be appended.
        inside: Local entries before that one that the store has not: they cannot be put in their place any more.
        common: How many entries both have.
        diverged: Whether the conversation has gone on in the store after that one, and not here: what comes after it
            here must not be appended, as it would become the newest turn.
    """

    after: list[Any]
    inside: list[Any]
    common: int
    diverged: bool


def align(local: Sequence[Any], stored: Sequence[Any]) -> Alignment:
    """Lay a local transcript beside the stored one. Notes that only the store has, such as a title, do not matter."""
    local, stored = comparable(local), comparable(stored)
    places: defaultdict[Mark, deque[int]] = defaultdict(deque)
    for index, entry in enumerate(local):
        places[mark(entry)].append(index)
    found = [places[each].popleft() if places[each] else None for each in map(mark, stored)]
    matched = {index for index in found if index is not None}
    end = max(matched, default=-1) + 1
    # Notes look alike: one that somebody else has added must not be taken for the end of what both have.
    last = max((at for at, index in enumerate(found) if index is not None and uuid_of(stored[at])), default=-1)
    return Alignment(
        after=list(local[end:]),
        inside=[entry for index, entry in enumerate(local[:end]) if index not in matched],
        common=len(matched),
        diverged=any(is_said(entry) for entry in stored[last + 1 :]),
    )


def missing_entries(local: Sequence[Any], stored: Sequence[Any]) -> list[Any]:
    """Return the local entries that can be appended: those after the last one the store has.

    None if the conversation has gone on in the store since; `align` tells.
    """
    alignment = align(local, stored)
    return [] if alignment.diverged else alignment.after


def between(
    local: Sequence[Any], before: Sequence[Any], after: Sequence[Any], later: Sequence[Any] = ()
) -> list[Any]:
    """Return the local entries that lie in a gap of what the store has.

    Args:
        local: The local transcript.
        before: Everything before the gap; none if it is at the beginning.
        after: What comes after the gap, up to the next one; none if the gap is at the end.
        later: Everything after the next gap.

    Raises:
        Invalid: The local transcript does not fit what is around the gap.
    """
    local = comparable(local)
    marks = [mark(entry) for entry in local]
    if not marks:
        raise _refusal("it is empty")
    ours_before, ours_after, ours_later = (
        [mark(entry) for entry in comparable(each)] for each in (before, after, later)
    )
    begin = _end_of(marks, ours_before)
    end = _start_of(marks, ours_after, begin) if ours_after else len(marks)
    if begin > end:
        raise _refusal("what comes before the gap and what comes after it overlap there")
    for side, elsewhere in ((ours_before, marks[begin:]), ([*ours_after, *ours_later], marks[:end])):
        if strays := _named(side) & _named(elsewhere):
            raise _refusal(f"entry {min(map(str, strays))} stands in another order there")
    return local[begin:end]


def _named(marks: Sequence[Mark]) -> set[object]:
    return {value for kind, value in marks if kind == "uuid"}


def _end_of(marks: Sequence[Mark], before: Sequence[Mark]) -> int:
    """Return where what comes before the gap ends in the local transcript."""
    if not before:
        return 0
    anchor = next((index for index in reversed(range(len(before))) if before[index][0] == "uuid"), None)
    if anchor is None:
        begin = 0  # nothing before has a name, so it has to be the beginning of the transcript
        rest = list(before)
    else:
        begin, rest = _place_of(marks, before[anchor]) + 1, list(before[anchor + 1 :])
    if list(marks[begin : begin + len(rest)]) != rest:
        raise _refusal("it does not have what the store has right before the gap")
    return begin + len(rest)


def _start_of(marks: Sequence[Mark], after: Sequence[Mark], begin: int) -> int:
    """Return where what comes after the gap starts in the local transcript."""
    anchor = next((index for index, (kind, _) in enumerate(after) if kind == "uuid"), None)
    if anchor is not None:
        start, rest = _place_of(marks, after[anchor]) - anchor, list(after[:anchor])
        if start < 0 or list(marks[start : start + anchor]) != rest:
            raise _refusal("it does not have what the store has right after the gap")
        return start
    # Nothing there has a name. Of several places that look alike any will do: what is not in this gap is in the
    # next, or is appended, and the whole is the same.
    length = len(after)
    for start in range(begin, len(marks) - length + 1):
        if list(marks[start : start + length]) == list(after):
            return start
    raise _refusal("it does not have what the store has right after the gap")


def _place_of(marks: Sequence[Mark], wanted: Mark) -> int:
    try:
        return marks.index(wanted)
    except ValueError:
        raise _refusal(f"it does not have entry {wanted[1]}, a neighbour of the gap") from None


def _refusal(why: str) -> Invalid:
    return Invalid(f"the local transcript does not fit: {why}", hint=HINT)


def without_repeats(entries: Sequence[Entry]) -> list[Entry]:
    """Return entries as readers show them: of those with the same uuid, the first."""
    seen: set[str] = set()
    kept = []
    for entry in entries:
        uuid = uuid_of(entry)
        if uuid is None or uuid not in seen:
            kept.append(entry)
        if uuid is not None:
            seen.add(uuid)
    return kept


def is_metadata(entry: Any) -> bool:
    """Tell whether an entry is a subagent's metadata, which a local transcript does not have."""
    return bool(type_of(entry) == METADATA)


def comparable(entries: Sequence[Entry]) -> list[Entry]:
    """Return what a local transcript and a stored one both have: no repeats, no metadata, no notes of requests."""
    return [entry for entry in without_repeats(entries) if type_of(entry) not in (METADATA, *NOT_MIRRORED)]


def same_session(entries: Sequence[Any], session_id: str) -> bool:
    """Tell whether a local transcript may be this session's, by the ids that its entries carry."""
    ids = {entry["sessionId"] for entry in entries if isinstance(entry, dict) and _has_id(entry)}
    return not ids or session_id in ids


def _has_id(entry: dict[str, Any]) -> bool:
    return isinstance(entry.get("sessionId"), str)
