"""What was handed over and is not known to be stored.

The SDK tries a batch three times and then lets it go with a log line, and may drop its own report of that. So the
store keeps the account itself. A batch leaves it when an append of it succeeds, or when a later append first settles
the attempt that the batch had left unresolved.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class _Missing:
    """A batch, and the write id of the attempt that was left unresolved, if it came so far."""

    entries: list[Any]  # kept, so that its identity stays its own: the SDK hands the same list to each try
    write_id: str | None


class Ledger:
    """An account of batches; safe to share by threads."""

    def __init__(self) -> None:
        self._missing: dict[int, _Missing] = {}
        self._given_up = 0
        self._refused: list[Any] | None = None
        self._lock = threading.Lock()

    @property
    def missing_entries(self) -> int:
        """How many entries are missing."""
        with self._lock:
            return self._given_up + sum(len(batch.entries) for batch in self._missing.values())

    @property
    def given_up_entries(self) -> int:
        """How many of them were not even kept, as too much waits already."""
        return self._given_up

    def failed(self, entries: list[Any], write_id: str | None) -> None:
        """Note that a batch was not stored, or perhaps was.

        Args:
            entries: The batch.
            write_id: The attempt at it that was left unresolved, or `None` if there is none of its own.
        """
        with self._lock:
            known = self._missing.get(id(entries))
            if entries is self._refused:
                return
            if known is None or known.write_id is None:
                self._missing[id(entries)] = _Missing(entries, write_id)

    def gave_up(self, entries: list[Any]) -> None:
        """Note that a batch was not taken. Only its number is kept, and its list until the next one, as it may come
        several times in a row."""
        with self._lock:
            if entries is not self._refused:
                self._given_up += len(entries)
                self._refused = entries

    def clear(self) -> None:
        """Note that nothing is missing: everything was found in the store, or put there from elsewhere."""
        with self._lock:
            self._missing.clear()
            self._given_up = 0
            self._refused = None

    def stored(self, entries: list[Any]) -> None:
        """Note that a batch is stored."""
        with self._lock:
            self._missing.pop(id(entries), None)

    def settled(self, write_id: str) -> None:
        """Note that an attempt that had been left unresolved is stored."""
        with self._lock:
            self._missing = {key: batch for key, batch in self._missing.items() if batch.write_id != write_id}
