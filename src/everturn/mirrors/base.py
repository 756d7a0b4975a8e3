"""What a mirror is: something derived from journals, purged and replayed and never mended (docs/mirrors.md)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
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
        lines: Parsed lines whose heads are in order (`journal.reading`), by number, each number once. What is folded
            already may be among them.
        part: The number of the last part that they come from; `None`: they come from this machine.
        from_start: Whether all that comes before has been read in the same go, so that numbers which are missing are
            missing for good.
        more: Whether the rest of the run's lines follows at once. A mirror may keep such a batch until then.
    """

    ref: RunRef
    lines: Sequence[Line]
    part: int | None = None
    from_start: bool = False
    more: bool = False


class Folding(Protocol):
    """What events are folded into."""

    def checkpoints(self) -> dict[RunRef, Checkpoint]:
        """Return how far each run is folded."""

    def fold(self, batch: Batch) -> bool:
        """Take in what is new in a batch, together with its checkpoint, or nothing of it.

        What comes of a run does not depend on how its lines are cut into batches.

        Returns:
            `False`: nothing was folded, as the lines do not join what was folded before: there is a hole between them
            or they fill one. Then the run has to be forgotten and read from its start.
        """

    def forget(self, refs: Collection[RunRef]) -> None:
        """Drop all that came of these runs."""


class Mirror(Folding, Protocol):
    """A mirror of the journals of one store.

    Attributes:
        name: What it is called in commands.
    """

    name: str

    def unusable(self) -> Reason | None:
        """Say why it has to be rebuilt before it can be used, or `None`."""

    def rebuilding(self, reason: Reason) -> AbstractContextManager[Folding | None]:
        """Enter with a mirror to fold all runs into; whoever reads sees the old one until the block ends well.

        It may hold runs already: those that a rebuild had folded before it was killed. `None`: there is nothing to
        do, as somebody else has rebuilt it while we waited.
        """
