"""A session that lies in a store, part by part, and what can happen to it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from obstore.store import LocalStore, MemoryStore

from everturn.clock import Ids, ManualClock
from everturn.log.format import decode, encode_part, encode_segment
from everturn.log.names import Span, part
from everturn.log.objects import BlockingObjects, Objects, run
from everturn.log.reader import read
from everturn.transcripts.archive import SessionRef
from everturn.transcripts.layout import Layout
from everturn.upkeep.repair import Plan, Repair, plan_repair
from everturn.upkeep.verification import SessionReport, verify_session

SESSION = "7df19cb2-f002-4f12-a0f4-5b4be6b08923"
REF = SessionRef("task-1", "-home-a", SESSION)
LAYOUT = Layout("task-1")
SUMMARY = LAYOUT.summary("-home-a", SESSION)
HOME = LAYOUT.home(SESSION)
DAY_S = 86_400


def said(number: int, parent: int | None = None, **more: Any) -> dict[str, Any]:
    """Return an entry that follows another; by default the one before it."""
    before = number - 1 if parent is None else parent
    return {
        "type": "user",
        "uuid": f"u-{number}",
        "parentUuid": f"u-{before}" if before else None,
        "sessionId": SESSION,
        "message": {"role": "user", "content": f"words {number}"},
        **more,
    }


MODE = {"type": "mode", "mode": "default", "sessionId": SESSION}


def write(path: Path, *entries: Any, end: str = "\n") -> Path:
    """Write a local transcript."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(entry) for entry in entries) + end, encoding="utf-8")
    return path


@dataclass
class Shelf:
    """A session in a store. `folder` is where its files are, for a store that has some."""

    objects: Objects
    ref: SessionRef = REF
    folder: Path | None = None

    @classmethod
    def in_memory(cls) -> Shelf:
        """Return an empty one whose store waits for nobody."""
        return cls(BlockingObjects(MemoryStore(), "memory://", ManualClock()))

    @classmethod
    def in_folder(cls, folder: Path) -> Shelf:
        """Return an empty one whose objects are files."""
        store = LocalStore(prefix=folder, mkdir=True)
        objects = BlockingObjects(store, folder.as_uri(), ManualClock())  # it waits for nothing
        return cls(objects, folder=folder)

    def key(self, name: Span | str, subpath: str | None = None) -> str:
        file_name = name if isinstance(name, str) else name.file_name
        return f"{self.ref.folder(subpath)}/{file_name}"

    def put(self, key: str, data: bytes) -> None:
        run(self.objects.put(key, data))

    def get(self, key: str) -> bytes:
        stored = run(self.objects.get(key))
        assert stored is not None
        return stored.data

    def lay(self, *parts: Sequence[Any], first: int = 1, subpath: str | None = None, epoch: int = 0) -> None:
        """Lay down parts one after the other."""
        for seq, entries in enumerate(parts, first):
            kind = "data" if entries else "fence"
            _, data = encode_part(seq, entries, epoch=epoch, writer="w", write_id=f"{seq:016x}", kind=kind)  # type: ignore[arg-type]
            self.put(self.key(part(seq), subpath), data)

    def compact(self, first: int, last: int, *, keep: bool = False) -> Span:
        """Write the segment of these parts, and delete them."""
        span = Span(first, last, segment=True)
        parts = [decode(self.get(self.key(part(seq))), part(seq)) for seq in range(first, last + 1)]
        self.put(self.key(span), encode_segment(parts, writer="c", write_id=f"{first:08x}{last:08x}"))
        if not keep:
            self.delete(*range(first, last + 1))
        return span

    def delete(self, *seqs: int) -> None:
        run(self.objects.delete([self.key(part(seq)) for seq in seqs]))

    def spoil(self, span: Span) -> bytes:
        """Flip a bit near the end, and return what is there now."""
        data = bytearray(self.get(self.key(span)))
        data[-3] ^= 4
        self.put(self.key(span), bytes(data))
        return bytes(data)

    def age(self) -> None:
        """Let everything that is there be a day old. Files only."""
        assert self.folder is not None
        for file in self.folder.rglob("*"):
            then = file.stat().st_mtime - DAY_S
            os.utime(file, (then, then))

    def names(self, prefix: str | None = None) -> list[str]:
        """Return the names of the main transcript's objects, or what lies below another folder."""
        folder = self.ref.folder() if prefix is None else prefix
        return sorted(item.key.removeprefix(f"{folder}/") for item in run(self.objects.listing(folder)))

    def entries(self, subpath: str | None = None) -> list[Any]:
        """Read as the store does."""
        return run(read(self.objects, self.ref.folder(subpath))).entries()

    def verify(self) -> SessionReport:
        return run(verify_session(self.objects, self.ref))

    def found(self, *, info: bool = False) -> list[tuple[str, str, int | None]]:
        """Return severity, kind and number of what a check finds."""
        return [
            (each.severity, each.kind, each.number)
            for each in self.verify().findings
            if info or each.severity != "info"
        ]

    def plan(self, local: Sequence[Any] | None = None, subpath: str | None = None) -> Plan:
        return run(plan_repair(self.objects, self.ref, subpath, local))

    def repair(self, local: Sequence[Any] | None = None, subpath: str | None = None) -> Plan:
        """Plan and carry out."""
        plan = self.plan(local, subpath)
        repair = Repair(self.objects, self.ref, subpath, clock=ManualClock(), ids=Ids(), writer="repair")
        run(repair.carry_out(plan))
        return plan
