"""Makes the golden store of format version 1 (docs/format.md).

What lies in `tests/golden/v1/` is for ever: it is what earlier releases have written. This script shows how it was
made, and lets a test compare what the present release would write:

    python tests/golden/make_golden.py tests/golden/v1 tests/golden/v1-expected.jsonl
"""

from __future__ import annotations

import json
import math
import sys
from itertools import count
from pathlib import Path
from typing import Any

from obstore.store import LocalStore

from everturn.clock import Ids, ManualClock
from everturn.log.format import Header, encode_segment
from everturn.log.names import Span, part
from everturn.log.objects import BlockingObjects, run
from everturn.log.reader import read, read_part
from everturn.log.stores import admit
from everturn.log.writer import LogWriter
from everturn.transcripts.homes import settle_home
from everturn.transcripts.layout import Layout
from everturn.transcripts.summaries import encode_summary

SCOPE = "acme/web#12"
PROJECT = "-home-Ada-work"
LIVE, DELETED, COMPACTED, REOPENED = (f"{n}0000000-0000-4000-8000-000000000000" for n in range(1, 5))

ODD: list[Any] = [
    {"uuid": "odd", "big": 10**69 + 1, "negative": -(2**63) - 1, "edge": 2**64 - 1},
    {"type": "surrogates", "\ud800": "\udfff and \ude00\ud83d"},
    {"type": "numbers", "floats": [0.1, -0.0, 5e-324, 1.7976931348623157e308, math.inf, -math.inf]},
    {"type": "nesting", "in": json.loads("[" * 300 + "]" * 300)},
]


class Golden:
    """Writes logs into a folder.

    Args:
        folder: Where the store is made.
    """

    def __init__(self, folder: Path) -> None:
        self.objects = BlockingObjects(LocalStore(prefix=folder, mkdir=True), "golden")
        self.layout = Layout(SCOPE)
        self._seeds = count(1)

    def writer(self, folder: str, epoch: int = 0) -> LogWriter:
        """Return a writer with ids of its own."""
        return LogWriter(
            self.objects,
            folder,
            clock=ManualClock(),
            ids=Ids(next(self._seeds)),
            observer=Silent(),
            epoch=epoch,
            writer=f"worker {epoch}" if epoch else "a guest",
        )

    def compact(self, folder: str, first: int, last: int, *, keep: int | None = None) -> None:
        """Write a segment and delete what it covers, but for one part."""
        covered = [part(seq) for seq in range(first, last + 1)]
        parts = [found for span in covered if (found := run(read_part(self.objects, folder, span)))]
        segment = encode_segment(parts, writer="compactor", write_id=Ids(next(self._seeds)).token())
        run(self.objects.create(f"{folder}/{Span(first, last, segment=True).file_name}", segment))
        self.delete(folder, *(span for span in covered if span.first != keep))

    def delete(self, folder: str, *spans: Span) -> None:
        """Delete objects of a log."""
        run(self.objects.delete([f"{folder}/{span.file_name}" for span in spans]))


class Silent:
    """An observer that does nothing."""

    def wrote(self, folder: str, header: Header, size_bytes: int, seconds: float) -> None:
        """See `Observer.wrote`."""

    def passed(self, folder: str, other: Header | None) -> None:
        """See `Observer.passed`."""

    def failed(self, folder: str, count: int, error: Exception) -> None:
        """See `Observer.failed`."""


def entry(number: int, text: str, **more: Any) -> dict[str, Any]:
    """Return an entry as transcripts have them."""
    return {"type": "user", "uuid": f"00000000-0000-4000-8000-{number:012}", "message": {"content": text}, **more}


def live(golden: Golden) -> str:
    """Two claims and a guest; a part that takes the exact way; an entry that was appended twice."""
    folder = golden.layout.log(PROJECT, LIVE, None)
    first = golden.writer(folder, epoch=1)
    run(first.open())
    run(first.append([entry(1, "Hello"), {"type": "queue-operation", "operation": "enqueue"}]))
    run(golden.writer(folder).append([{"type": "custom-title", "customTitle": "Grüße, \u2028 and 😀"}]))
    run(first.append([entry(2, "second", parentUuid=None, empty=[{}, [], ""])]))
    run(first.append(ODD))
    second = golden.writer(folder, epoch=2)
    run(second.open())
    run(second.append([entry(2, "second, again"), entry(3, "third"), "text", None, 1, True, []]))
    return folder


def sub(golden: Golden) -> str:
    """A sub-transcript."""
    folder = golden.layout.log(PROJECT, LIVE, "subagents/agent-1")
    guest = golden.writer(folder)
    run(guest.append([entry(1, "of the agent", isSidechain=True)]))
    run(guest.append([{"type": "no uuid"}, {"type": "no uuid"}]))
    return folder


def deleted(golden: Golden) -> str:
    """A session of which only the truncation is left."""
    folder = golden.layout.log(PROJECT, DELETED, None)
    guest = golden.writer(folder)
    for number in (1, 2, 3):
        run(guest.append([entry(number, "deleted")]))
    run(guest.truncate())
    golden.delete(folder, part(1), part(2), part(3))
    return folder


def compacted(golden: Golden) -> str:
    """A segment, a part that it covers and that still lies there, and three parts after it."""
    folder = golden.layout.log(PROJECT, COMPACTED, None)
    writer = golden.writer(folder, epoch=7)
    run(writer.open())
    run(writer.append([entry(1, "one"), entry(2, "two")]))
    run(writer.append(ODD[:1]))
    run(golden.writer(folder).append([entry(3, "three")]))
    golden.compact(folder, 1, 4, keep=3)
    later = golden.writer(folder, epoch=8)
    run(later.open())
    run(later.append([entry(1, "one, again"), entry(4, "four")]))
    run(golden.writer(folder).append([entry(5, "five")]))
    return folder


def reopened(golden: Golden) -> str:
    """A session that was deleted and written anew, with the truncation inside a segment."""
    folder = golden.layout.log(PROJECT, REOPENED, None)
    guest = golden.writer(folder)
    run(guest.append([entry(1, "deleted")]))
    run(guest.truncate())
    run(guest.append([entry(1, "kept")]))
    golden.compact(folder, 1, 3)
    run(guest.append([entry(2, "after")]))
    return folder


def make(folder: Path) -> dict[str, list[Any]]:
    """Make the store.

    Returns:
        The entries that a reader is to find, by the folder of the log.
    """
    golden = Golden(folder)
    objects, layout = golden.objects, golden.layout
    run(admit(objects, SCOPE, "golden"))
    folders = [write(golden) for write in (live, sub, deleted, compacted, reopened)]
    for session_id in (LIVE, COMPACTED, REOPENED):
        run(settle_home(objects, layout, session_id, PROJECT))
        data = {"custom_title": f"session {session_id[0]}"}
        summary = encode_summary({"session_id": session_id, "mtime": 0, "data": data}, 4)
        run(objects.put(layout.summary(PROJECT, session_id), summary))
    return {folder: run(read(objects, folder)).entries() for folder in folders}


if __name__ == "__main__":
    expected = make(Path(sys.argv[1]))
    lines = [json.dumps({"log": log, "entries": entries}) + "\n" for log, entries in expected.items()]
    Path(sys.argv[2]).write_text("".join(lines))
