"""What version 1 wrote is read for ever (docs/format.md, golden files)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from obstore.store import LocalStore

from everturn.clock import Ids
from everturn.errors import Denied
from everturn.log.encryption import SealedObjects
from everturn.log.format import Header, Part, decode
from everturn.log.names import parse_file_name, unescape
from everturn.log.objects import BlockingObjects, run
from everturn.log.reader import read
from everturn.log.stores import admit
from everturn.transcripts.holds import hold_on
from golden import make_more_golden
from golden.make_golden import COMPACTED, DELETED, LIVE, REOPENED, make

GOLDEN = Path(__file__).parent.parent / "golden"
STORE = GOLDEN / "v1"


def expected(name: str) -> dict[str, list[Any]]:
    rows = map(json.loads, (GOLDEN / f"{name}-expected.jsonl").read_text().splitlines())
    return {row["log"]: row["entries"] for row in rows}


EXPECTED = expected("v1")
PROJECT = "sessions/acme!2fweb!2312/-home-Ada-work!.10"

MORE = GOLDEN / "v1-more"
MORE_EXPECTED = expected("v1-more")

# Nobody may rewrite these files: they stand for data that is out there. `sha256sum -c SHA256SUMS` looks at them, too.
SUMS_SHA256 = "151fedf1e1fffa9d2ed319590a40fdb68eca00c46934af3b722c9bb0e03e85b7"
MORE_SUMS_SHA256 = "bf08158d5292eb3ff473a90ff6cd574675ef6bd98a28c9006cc1854151c4fccc"


@pytest.fixture
def objects() -> BlockingObjects:
    return BlockingObjects(LocalStore(prefix=STORE), "golden")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def part_of(name: str, data: bytes) -> Part:
    span = parse_file_name(name.rpartition("/")[2])
    assert span is not None
    return decode(data, span)


def test_nobody_has_rewritten_the_golden_files() -> None:
    sums = (GOLDEN / "SHA256SUMS").read_bytes()
    assert hashlib.sha256(sums).hexdigest() == SUMS_SHA256
    found = {f"v1/{name}": data for name, data in files(STORE).items()}
    found["v1-expected.jsonl"] = (GOLDEN / "v1-expected.jsonl").read_bytes()
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}
    assert {name: digest for digest, name in map(str.split, sums.decode().splitlines())} == digests


@pytest.mark.parametrize("log", EXPECTED)
def test_a_golden_log_is_read_as_it_was_written(objects: BlockingObjects, log: str) -> None:
    found = run(read(objects, log))
    # By its text, which tells 1 from True and 0.0 from -0.0.
    assert json.dumps(found.entries()) == json.dumps(EXPECTED[log])
    assert found.exists == bool(EXPECTED[log])


@pytest.mark.parametrize(
    ("session", "tail", "kinds"),
    [
        (LIVE, 7, ["fence", "data", "data", "data", "data", "fence", "data"]),
        (DELETED, 4, []),
        (COMPACTED, 7, ["segment", "fence", "data", "data"]),
        (REOPENED, 4, ["segment", "data"]),
    ],
)
def test_a_golden_log_has_its_parts(objects: BlockingObjects, session: str, tail: int, kinds: list[str]) -> None:
    log = run(read(objects, f"{PROJECT}/{session}/main"))
    assert log.tail == tail
    assert [part.header.kind for part in log.parts] == kinds


def test_the_golden_store_is_one_for_this_release(tmp_path: Path) -> None:
    folder = tmp_path / "v1"
    for name, data in files(STORE).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    run(admit(BlockingObjects(LocalStore(prefix=folder), "golden"), "acme/web#12", "golden"))
    assert files(folder) == files(STORE)


def test_the_names_of_the_golden_store_are_understood() -> None:
    assert unescape("acme!2fweb!2312") == "acme/web#12"
    assert unescape("-home-Ada-work!.10") == "-home-Ada-work"
    assert unescape("subagents!2fagent-1") == "subagents/agent-1"


def test_the_present_release_writes_what_the_golden_store_holds(tmp_path: Path) -> None:
    assert make(tmp_path / "v1") == EXPECTED
    written, golden = files(tmp_path / "v1"), files(STORE)
    assert written.keys() == golden.keys()
    for name in golden:
        if name.endswith(".jsonl.zst"):  # compressed bytes may differ from one library to the next
            assert comparable(part_of(name, written[name])) == comparable(part_of(name, golden[name]))
        else:
            assert written[name] == golden[name]


def comparable(part: Part) -> tuple[Header, bytes]:
    notes = tuple((epoch, "", count, kind) for epoch, _, count, kind in part.header.parts)
    return replace(part.header, write_id="", parts=notes), b"".join(part.pieces())


# --- The second store: compaction, encryption, repair, holds --------------------------------------------------------


@pytest.fixture
def more() -> SealedObjects:
    return SealedObjects(BlockingObjects(LocalStore(prefix=MORE), "golden"), make_more_golden.old_and_new, Ids())


def test_nobody_has_rewritten_the_second_golden_store() -> None:
    sums = (GOLDEN / "SHA256SUMS-more").read_bytes()
    assert hashlib.sha256(sums).hexdigest() == MORE_SUMS_SHA256
    found = {f"v1-more/{name}": data for name, data in files(MORE).items()}
    found["v1-more-expected.jsonl"] = (GOLDEN / "v1-more-expected.jsonl").read_bytes()
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}
    assert {name: digest for digest, name in map(str.split, sums.decode().splitlines())} == digests


@pytest.mark.parametrize("log", MORE_EXPECTED)
def test_a_log_of_the_second_golden_store_is_read_as_it_was_written(more: SealedObjects, log: str) -> None:
    assert json.dumps(run(read(more, log)).entries()) == json.dumps(MORE_EXPECTED[log])


def test_without_the_keys_the_sealed_log_says_which_one_is_missing() -> None:
    objects = SealedObjects(BlockingObjects(LocalStore(prefix=MORE), "golden"), None, Ids())
    with pytest.raises(Denied, match="2026-1"):
        run(read(objects, f"sessions/task-1/-home-ada/{make_more_golden.SEALED}/main"))


def test_the_hold_and_the_catalog_of_the_second_golden_store_are_understood(more: SealedObjects) -> None:
    hold = run(hold_on(more, "task-1", make_more_golden.TIERED))
    assert hold is not None
    assert (hold.reason, hold.by, hold.since) == ("case 12", "ada", "2026-09-21T14:13:20+00:00")
    catalog = run(more.get("catalogs/task-1/-home-ada.json"))
    assert catalog is not None
    assert json.loads(catalog.data)["summaries"][make_more_golden.TIERED][1] == {"custom_title": "tiered"}


def test_the_present_release_writes_what_the_second_golden_store_holds(tmp_path: Path) -> None:
    assert make_more_golden.make(tmp_path / "v1-more") == MORE_EXPECTED
    assert files(tmp_path / "v1-more").keys() == files(MORE).keys()
