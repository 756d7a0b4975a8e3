"""What a store has of a log, and what the agent's own file has of it, laid beside each other as both grow.

To tell whether something is missing, the log does not have to be read again: an append is acknowledged when its
entries are durable and can no longer change, so what was read once and what was acknowledged since is what a read
would return, for as long as the claim lasts. Of each entry a mark is kept, until it is met on the other side. What
is left over after that is little: what the file has not got yet, and what the store has not got yet.

An entry with a uuid is met by the one with the same uuid. Notes have none, and look alike, so those behind the same
uuid are met in their order; only one that is left over is met by an equal one elsewhere.
"""

from __future__ import annotations

import json
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from everturn.log.entries import encode

Mark = tuple[str, object]

METADATA = "agent_metadata"  # in a sub-transcript in the store, in a small file of its own beside a local one
# What the agent command (2.1.327) writes to its own file and does not hand over to a store: what it asked the model.
NOT_MIRRORED = frozenset({"api-request", "api-request-blob", "api-request-shape"})
DIGEST_BYTES = 16


def mark(entry: Any) -> Mark:
    """Return what tells an entry from others: its uuid or, if it has none, everything it says."""
    uuid = uuid_of(entry)
    return ("uuid", uuid) if uuid is not None else ("value", _canonical(entry))


def digest(entry: Any) -> bytes:
    """Return an entry's mark in 16 bytes."""
    kind, value = mark(entry)
    data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
    return blake2b(data, digest_size=DIGEST_BYTES, person=kind.encode()).digest()


def uuid_of(entry: Any) -> str | None:
    """Return an entry's uuid, if it has one."""
    uuid = entry.get("uuid") if isinstance(entry, dict) else None
    return uuid if type(uuid) is str else None


def type_of(entry: Any) -> Any:
    """Return what kind of entry it says it is."""
    return entry.get("type") if isinstance(entry, dict) else None


def is_said(entry: Any) -> bool:
    """Tell whether an entry is something that was said, not one of the agent's notes to itself."""
    return type_of(entry) in ("user", "assistant")


def cost_noted(entries: Iterable[Any]) -> dict[str, Any] | None:
    """Return the last note of what the conversation has cost so far, or `None`. The agent command goes on from it."""
    notes = [entry for entry in entries if type_of(entry) == "cost-state"]
    return notes[-1] if notes else None


def _canonical(entry: Any) -> bytes:
    try:
        return json.dumps(entry, sort_keys=True).encode()
    except RecursionError:  # nested too deeply for that; its keys keep the order in which they came
        return encode([entry]).lines


@dataclass(frozen=True, slots=True)
class Place:
    """How far a local file has been read.

    Attributes:
        offset: So many bytes.
        lines: So many lines.
        ending: The last bytes before that, to see whether it is still the same file.
    """

    offset: int = 0
    lines: int = 0
    ending: bytes = b""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A local entry that the store is not known to have.

    Attributes:
        number: Its place among the local entries.
        entry: What it says.
        digest: Its mark.
        behind: The mark of the last entry with a uuid before it.
        repeats: Whether it is a note that says what the last note of its kind has said already.
    """

    number: int
    entry: Any
    digest: bytes
    behind: bytes
    repeats: bool

    @property
    def is_note(self) -> bool:
        """Whether it has no uuid."""
        return uuid_of(self.entry) is None


class Marks:
    """One log's marks. Safe to share by threads.

    Attributes:
        known: Whether everything that the store has is accounted for.
        deleted: Whether the log was deleted, and nothing was stored since.
        place: How far the local file has been compared.
        lost: How many local entries the store was found not to have, when it was last read, though it has gone on
            behind them. For whoever compares: it need not be read again for those.
    """

    known: bool
    deleted: bool
    place: Place
    lost: int
    _unmet: set[bytes]  # entries with a uuid that are stored, and not met in the file
    _unmet_notes: dict[bytes, list[bytes]]  # the same for notes, in order, by what they stand behind
    _behind: tuple[bytes, bytes]  # the last entry with a uuid that is stored, and that in the file
    _waiting: list[Waiting]  # met in the file, and not known to be stored
    _kinds: set[str]  # the types of what is stored
    _notes: dict[str, bytes]  # the last note of each kind in the file
    _metadata: bytes | None
    _count: int
    _last_met: int

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.known = False
        self.deleted = False
        self._forget()

    def begin(self, entries: Sequence[Any]) -> None:
        """Take note of everything that the store has, and compare the local file from its beginning."""
        with self._lock:
            self._forget()
            self.known = True
            self._note(entries)

    def forget(self) -> None:
        """Take note that it is not known what the store has."""
        with self._lock:
            self._forget()
            self.known = False

    def stored(self, entries: Sequence[Any]) -> None:
        """Take note of what was acknowledged."""
        with self._lock:
            self.deleted = False
            self._note(entries)

    def has_metadata(self, metadata: Any) -> bool:
        """Tell whether this is the newest metadata that the store has."""
        with self._lock:
            return self._metadata == digest(metadata)

    def meet(self, entries: Sequence[Any], place: Place) -> None:
        """Lay what has been added to the local file beside what is stored."""
        with self._lock:
            self.place = place
            for entry in entries:
                if type_of(entry) not in (METADATA, *NOT_MIRRORED):
                    self._meet(entry)
            self._strike_out({each.number for each in self._waiting if each.digest in self._unmet})
            self._strike_out(self._notes_in_order())
            self._strike_out(self._notes_anywhere())

    def inside(self) -> list[Any]:
        """Return the local entries that the store is not known to have though it has gone on behind them.

        Some notes are no loss, as the agent command repeats them in its own file alone: those that say nothing new,
        and those of a kind of which it has handed over none.
        """
        with self._lock:
            behind = [each for each in self._waiting if each.number < self._last_met]
            return [each.entry for each in behind if not self._is_no_loss(each)]

    def after(self) -> list[Any]:
        """Return the local entries behind the last one that the store has."""
        with self._lock:
            return [each.entry for each in self._waiting if each.number > self._last_met]

    def _forget(self) -> None:
        self.place, self.lost = Place(), 0
        self._unmet, self._unmet_notes, self._waiting = set(), {}, []
        self._kinds, self._notes, self._metadata = set(), {}, None
        self._behind = (b"", b"")
        self._count, self._last_met = 0, -1

    def _note(self, entries: Sequence[Any]) -> None:
        stored, local = self._behind
        for entry in entries:
            kind = type_of(entry)
            if kind == METADATA:
                self._metadata = digest(entry)
                continue
            if uuid_of(entry) is None:
                self._unmet_notes.setdefault(stored, []).append(digest(entry))
            else:
                stored = digest(entry)
                self._unmet.add(stored)
            if isinstance(kind, str):
                self._kinds.add(kind)
        self._behind = stored, local

    def _meet(self, entry: Any) -> None:
        stored, behind = self._behind
        print_ = digest(entry)
        repeats = False
        if uuid_of(entry) is None:
            kind = str(type_of(entry))
            repeats = self._notes.get(kind) == print_
            self._notes[kind] = print_
        else:
            self._behind = stored, print_
        self._waiting.append(Waiting(self._count, entry, print_, behind, repeats))
        self._count += 1

    def _strike_out(self, met: set[int]) -> None:
        """Take what was met from both sides. Of notes the marks are taken already."""
        self._unmet -= {each.digest for each in self._waiting if each.number in met}
        self._waiting = [each for each in self._waiting if each.number not in met]
        self._last_met = max(self._last_met, *met) if met else self._last_met

    def _notes_in_order(self) -> set[int]:
        """Let stored notes meet the local ones that stand behind the same entry, one after the other."""
        met: set[int] = set()
        waiting: dict[bytes, list[Waiting]] = {}
        for each in self._waiting:
            if each.is_note:
                waiting.setdefault(each.behind, []).append(each)
        for behind, notes in waiting.items():
            places: dict[bytes, list[int]] = {}
            for index, each in enumerate(notes):
                places.setdefault(each.digest, []).append(index)
            at, left = 0, []
            for print_ in self._unmet_notes.pop(behind, []):
                same = places.get(print_, [])
                found = bisect_left(same, at)
                if found == len(same):
                    left.append(print_)
                else:
                    met.add(notes[same[found]].number)
                    at = same[found] + 1
            if left:
                self._unmet_notes[behind] = left
        return met

    def _notes_anywhere(self) -> set[int]:
        """Let local notes that are left over meet any that is stored, and was left over too."""
        notes: dict[bytes, deque[int]] = {}
        for each in self._waiting:
            if each.is_note:
                notes.setdefault(each.digest, deque()).append(each.number)
        met: set[int] = set()
        for behind, prints in list(self._unmet_notes.items()) if notes else ():
            left = []
            for print_ in prints:
                if same := notes.get(print_):
                    met.add(same.popleft())
                else:
                    left.append(print_)
            if left:
                self._unmet_notes[behind] = left
            else:
                del self._unmet_notes[behind]
        return met

    def _is_no_loss(self, each: Waiting) -> bool:
        return each.is_note and (each.repeats or type_of(each.entry) not in self._kinds)
