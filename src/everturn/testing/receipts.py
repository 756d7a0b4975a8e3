"""Receipts: what a worker was told is safe, written down outside the store, to be compared with it later."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claude_agent_sdk import SessionKey, SessionStoreEntry

from everturn.transcripts.store import TranscriptStore


class ReceiptedStore(TranscriptStore):
    """A `TranscriptStore` that notes each entry in a file once, and only after, its append has returned.

    The file survives the death of the process. Its lines are `[subpath or null, entry]`.

    Args:
        args: As for `TranscriptStore`.
        receipts: The file; it is made if it does not exist, and appended to if it does.
        kwargs: As for `TranscriptStore`.
    """

    def __init__(self, *args: Any, receipts: Path, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._receipts = receipts

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Append, then note."""
        await super().append(key, entries)
        subpath = key.get("subpath")
        lines = "".join(json.dumps([subpath, entry]) + "\n" for entry in entries)
        with self._receipts.open("a", encoding="utf-8") as file:
            file.write(lines)


@dataclass(frozen=True)
class Verdict:
    """How many acknowledged entries the store returns."""

    acknowledged: int
    recovered: int

    @property
    def lost(self) -> int:
        """How many it does not."""
        return self.acknowledged - self.recovered


def read_receipts(path: Path) -> dict[str | None, list[Any]]:
    """Return the entries that were acknowledged, in order, by subpath (`None`: the main transcript).

    A last line that is cut off, because its worker was killed while writing it, is left out.
    """
    found: dict[str | None, list[Any]] = {}
    if path.exists():
        whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
        for line in whole.split("\n") if whole else ():
            subpath, entry = json.loads(line)
            found.setdefault(subpath, []).append(entry)
    return found


def compare(acknowledged: list[Any], stored: list[Any]) -> Verdict:
    """Count the acknowledged entries that stand in the store, in the order in which they were acknowledged.

    An entry that was acknowledged twice under one `uuid` counts once: that is what the store keeps.
    """
    wanted = _first_of_each_uuid(acknowledged)
    position = recovered = 0
    for entry in wanted:
        if entry in stored[position:]:
            position = stored.index(entry, position) + 1
            recovered += 1
    return Verdict(len(wanted), recovered)


def _first_of_each_uuid(entries: list[Any]) -> list[Any]:
    seen: set[str] = set()
    kept = []
    for entry in entries:
        uuid = entry.get("uuid")
        if uuid is None or uuid not in seen:
            kept.append(entry)
        if uuid is not None:
            seen.add(uuid)
    return kept
