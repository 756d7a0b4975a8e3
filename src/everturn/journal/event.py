"""What all events of a journal have (docs/journal.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

VERSION = 1
FIELDS: dict[str, tuple[str, ...]] = {}  # the names of the fields of each type; `events` knows them all


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run.

    Attributes:
        TYPE: What its lines say in `type`.
        FOREIGN: Whether it carries JSON from elsewhere, which may hold anything.
    """

    TYPE: ClassVar[str] = ""
    FOREIGN: ClassVar[bool] = True

    def record(self, seq: int, at_ms: int) -> dict[str, Any]:
        """Return what its line says.

        Args:
            seq: Its number in the run.
            at_ms: When it is written, in milliseconds since the Unix epoch.
        """
        head = {"v": VERSION, "seq": seq, "at_ms": at_ms, "type": self.TYPE}
        return head | {name: getattr(self, name) for name in FIELDS[self.TYPE]}
