"""What a mirror is: something derived from journals, purged and replayed and never mended (docs/mirrors.md)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from everturn.journal.reading import RunRef

Line = dict[str, Any]
Reason = Literal["missing", "fold_changed", "corrupt", "other_store", "asked"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a run is folded.

    Attributes:
        ref: The run.
        seq: The last event that is folded.
        part: The last part of the stored journal that has been read; 0: none, all came from this machine.
        stored_seq: The last event that those parts hold.
    """

    ref: RunRef
    seq: int
    part: int = 0
    stored_seq: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Some lines of a run's journal, one after the other.

    Attributes:
        ref: The run.
        lines: Parsed lines with usable heads, by number, each number once. Some of them may be folded already.
        part: The number of the last part that they come from; `None`: they come from a file on this machine.
        after: The number of the last part before those that they come from or, for lines from a file, of the last
            event before them; 0: there is none. What is missing behind it is missing for good.
        more: Whether the rest of the reading follows at once. A mirror may keep such a batch until then.
    """

    ref: RunRef
    lines: Sequence[Line]
    part: int | None = None
    after: int = 0
    more: bool = False

    def news(self, done: Checkpoint | None, missing: Sequence[Sequence[int]]) -> list[Line] | None:
        """Return the lines that are to be folded.

        Args:
            done: How far the run is folded.
            missing: Holes in what is folded: the first and the last number of each.

        Returns:
            `None`: the batch does not join what is folded. Something between them has not been read, or it fills a
            hole.
        """
        seq, part = (0, 0) if done is None else (done.seq, done.part)
        lines = self.lines
        news = list(lines) if lines and lines[0]["seq"] > seq else [line for line in lines if line["seq"] > seq]
        joins = (seq if self.part is None else part) >= self.after
        if missing and len(news) < len(self.lines):
            known = {line["seq"] for line in self.lines if line["seq"] <= seq}
            joins = joins and not any(first <= each <= last for first, last in missing for each in known)
        return news if joins else None

    def done(self, before: Checkpoint | None, seq: int) -> Checkpoint:
        """Return the checkpoint once the batch is folded, up to this event."""
        before = before or Checkpoint(self.ref, 0)
        if self.part is None:
            return Checkpoint(self.ref, seq, before.part, before.stored_seq)
        stored_seq = max(before.stored_seq, self.lines[-1]["seq"] if self.lines else 0)
        return Checkpoint(self.ref, seq, max(before.part, self.part), stored_seq)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much there is in a mirror.

    Attributes:
        runs: How many runs.
        events: How many events were folded.
        size_bytes: How much room it takes on the disk.
    """

    runs: int
    events: int
    size_bytes: int


class Folding(Protocol):
    """What events are folded into."""

    def checkpoints(self) -> dict[RunRef, Checkpoint]:
        """Return how far each run is folded."""

    def fold(self, batch: Batch) -> bool:
        """Take in what is new in a batch, together with its checkpoint, or nothing of it.

        What comes of a run does not depend on how its lines are cut into batches.

        Returns:
            `False`: nothing was folded, as the lines do not join what was folded before: something between
            them has not been read, or they fill a hole. Then the run has to be forgotten and read from its start.
        """

    def forget(self, refs: Collection[RunRef]) -> None:
        """Drop all that came of these runs."""


class Mirror(Folding, Protocol):
    """A mirror of the journals of one store.

    Attributes:
        name: What it is called in commands.
    """

    name: str

    @property
    def path(self) -> Path:
        """Where it is."""

    def extent(self) -> Extent:
        """Return how much there is in it. Raises as its `checkpoints`."""

    def unusable(self) -> Reason | None:
        """Say why it has to be rebuilt before it can be used, or `None`."""

    def rebuilding(self, reason: Reason) -> AbstractContextManager[Folding | None]:
        """Enter with a mirror to fold all runs into; whoever reads sees the old one until the block ends well.

        It may hold runs already: those that a rebuild had folded before it was killed. `None`: there is nothing to
        do, as somebody else has rebuilt it while we waited.
        """
