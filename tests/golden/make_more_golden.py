"""Makes the second golden store of format version 1: compaction, encryption, repair, holds (docs/format.md).

What lies in `tests/golden/v1-more/` is for ever, too:

    python tests/golden/make_more_golden.py tests/golden/v1-more tests/golden/v1-more-expected.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from obstore.store import LocalStore

from everturn.clock import Ids, ManualClock
from everturn.log.compaction import compact
from everturn.log.encryption import Key, SealedObjects
from everturn.log.format import decode, encode_part, encode_segment
from everturn.log.names import Span, part
from everturn.log.objects import BlockingObjects, Objects, run
from everturn.log.reader import read, read_part
from everturn.log.stores import admit
from everturn.log.writer import LogWriter
from everturn.transcripts.holds import place_hold
from everturn.transcripts.layout import Layout

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from golden.make_golden import ODD, Silent, entry

SCOPE = "task-1"
PROJECT = "-home-ada"
SEALED, TIERED, REPAIRED = (f"{n}0000000-0000-4000-8000-000000000000" for n in range(5, 8))
OLD = Key("2026-10", bytes(range(32)))
NEW = Key("2026-11", bytes(range(100, 132)))


def old_and_new(name: str | None) -> Key:
    """Return the key of a name; the new one to write with."""
    keys = {None: NEW, OLD.name: OLD, NEW.name: NEW}
    return keys[name]


def only_old(name: str | None) -> Key:
    """Return the old key, as before the rotation."""
    return {None: OLD, OLD.name: OLD}[name]


def append(objects: Objects, folder: str, seed: int, *batches: list[Any]) -> None:
    """Append batches as a guest."""
    writer = LogWriter(objects, folder, clock=ManualClock(), ids=Ids(seed), observer=Silent(), writer="a guest")
    for batch in batches:
        run(writer.append(batch))


def sealed(inner: Objects, folder: str) -> Objects:
    """Parts under one key, then, after a rotation, a segment over some of them and a part under another."""
    before = SealedObjects(inner, only_old, Ids(11))
    after = SealedObjects(inner, old_and_new, Ids(12))
    append(before, folder, 1, [entry(1, "one")], ODD[:1])
    run(compact(after, folder, writer="compactor", ids=Ids(2), everything=True))
    append(after, folder, 3, [entry(2, "two")])
    return after


def tiered(inner: Objects, folder: str) -> Objects:
    """Two segments that overlap, what they cover, and a part after them."""
    append(inner, folder, 4, *([entry(number, f"number {number}"), {"n": number}] for number in range(1, 8)))
    for first, last, token in ((1, 4, "a"), (3, 6, "b")):
        parts = [found for seq in range(first, last + 1) if (found := run(read_part(inner, folder, part(seq))))]
        data = encode_segment(parts, writer="compactor", write_id=token * 16)
        run(inner.create(f"{folder}/{Span(first, last, segment=True).file_name}", data))
    run(inner.delete([f"{folder}/{part(2).file_name}", f"{folder}/{part(5).file_name}"]))
    return inner


def repaired(inner: Objects, folder: str) -> Objects:
    """A number that is lost for good, as somebody has agreed."""
    append(inner, folder, 5, [entry(1, "one")], [entry(2, "lost")], [entry(3, "three")])
    run(inner.delete([f"{folder}/{part(2).file_name}"]))
    _, nothing = encode_part(2, [], epoch=0, writer="repair", write_id="d" * 16)
    data = encode_segment([decode(nothing, part(2))], writer="repair", write_id="c" * 16, repaired="lost")
    run(inner.create(f"{folder}/{Span(2, 2, segment=True).file_name}", data))
    return inner


def make(folder: Path) -> dict[str, list[Any]]:
    """Make the store.

    Returns:
        The entries that a reader with the keys is to find, by the folder of the log.
    """
    inner = BlockingObjects(LocalStore(prefix=folder, mkdir=True), "golden")
    layout = Layout(SCOPE)
    run(admit(inner, SCOPE, "golden"))
    expected = {}
    for session_id, write in ((SEALED, sealed), (TIERED, tiered), (REPAIRED, repaired)):
        log = layout.log(PROJECT, session_id, None)
        expected[log] = run(read(write(inner, log), log)).entries()
    run(place_hold(inner, SCOPE, TIERED, "case 12", by="ada", now_s=1_790_000_000))
    rows = {TIERED: [1_790_000_000_000, {"custom_title": "tiered"}]}
    run(inner.put(layout.catalog(PROJECT), json.dumps({"v": 1, "summaries": rows}).encode()))
    return expected


if __name__ == "__main__":
    found = make(Path(sys.argv[1]))
    lines = [json.dumps({"log": log, "entries": entries}) + "\n" for log, entries in found.items()]
    Path(sys.argv[2]).write_text("".join(lines))
