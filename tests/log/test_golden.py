"""What version 1 wrote is read for ever (docs/format.md, golden files)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from obstore.store import LocalStore

from everturn.log.format import Part, decode
from everturn.log.names import parse_file_name, unescape
from everturn.log.objects import BlockingObjects, run
from everturn.log.reader import read
from everturn.log.stores import admit
from golden.make_golden import COMPACTED, DELETED, LIVE, REOPENED, make

GOLDEN = Path(__file__).parent.parent / "golden"
STORE = GOLDEN / "v1"
EXPECTED: dict[str, list[Any]] = {
    row["log"]: row["entries"] for row in map(json.loads, (GOLDEN / "v1-expected.jsonl").read_text().splitlines())
}
PROJECT = "sessions/acme!2fweb!2312/-home-Ada-work!.10"

# Nobody may rewrite these files: they stand for data that is out there. `sha256sum -c SHA256SUMS` looks at them, too.
SUMS_SHA256 = "151fedf1e1fffa9d2ed319590a40fdb68eca00c46934af3b722c9bb0e03e85b7"


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


def comparable(part: Part) -> Part:
    notes = tuple((epoch, "", count, kind) for epoch, _, count, kind in part.header.parts)
    return replace(part, header=replace(part.header, write_id="", parts=notes))
