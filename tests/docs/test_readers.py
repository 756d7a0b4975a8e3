"""Programs that know nothing of Everturn read what it wrote, and find what it finds itself."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from everturn import Settings, TranscriptStore
from everturn.clock import Ids
from everturn.log.compaction import compact
from everturn.log.format import encode_segment
from everturn.log.names import Span, part
from everturn.log.objects import Objects, run
from everturn.log.reader import list_spans, read_part
from everturn.log.stores import connect
from everturn.transcripts.layout import Layout
from recorded import PROJECT, SESSION, keep, tap

EXAMPLES = Path(__file__).parents[2] / "examples"
READERS = ["read_plain.py", "read_with_duckdb.py"]
EITHER = pytest.mark.parametrize("reader", READERS)
FOLDER = Layout("tap").log(PROJECT, SESSION, None)
KEY: Any = {"project_key": PROJECT, "session_id": SESSION}
AGAIN = {"type": "user", "uuid": "again", "n": 1}
ENTRIES = [*tap()[0][:40], AGAIN, {"type": "mode"}, {**AGAIN, "n": 2}, {"type": "mode"}]


@dataclass
class Kept:
    """A session in a folder."""

    store: Path

    def __post_init__(self) -> None:
        self.url = keep(self.store, ENTRIES, at_once=5)
        self.objects: Objects = connect(self.url, Settings.load())
        self.folder = self.store / FOLDER

    def load(self) -> list[Any]:
        """Return what the store itself returns."""

        async def main() -> list[Any]:
            async with TranscriptStore.open(self.url, scope="tap", settings=Settings.load()) as store:
                return list(await store.load(KEY) or [])

        return anyio.run(main)

    def read_with(self, reader: str) -> list[Any]:
        """Return what an example prints."""
        done = self.run(reader)
        assert (done.returncode, done.stderr) == (0, "")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def run(self, reader: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", EXAMPLES / reader, self.folder, *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=60,
            check=False,
        )

    def put_segment(self, first: int, last: int) -> None:
        """Write a segment of some parts, and leave the parts where they are."""
        parts = [run(read_part(self.objects, FOLDER, part(seq))) for seq in range(first, last + 1)]
        data = encode_segment([each for each in parts if each], writer="test", write_id=f"{first:08x}{last:08x}")
        (self.folder / Span(first, last, segment=True).file_name).write_bytes(data)

    def forget(self, *numbers: int) -> None:
        """Delete parts."""
        for number in numbers:
            (self.folder / part(number).file_name).unlink()


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "store")


@EITHER
def test_parts_are_read_as_the_store_reads_them(kept: Kept, reader: str) -> None:
    found = kept.read_with(reader)
    assert found == kept.load()
    assert found[-3:] == [AGAIN, {"type": "mode"}, {"type": "mode"}]
    assert len(list(kept.folder.iterdir())) == 9


@EITHER
@pytest.mark.parametrize("freed", [False, True])
def test_segments_are_read_as_the_store_reads_them(kept: Kept, reader: str, freed: bool) -> None:
    before = kept.load()
    kept.put_segment(1, 4)
    kept.put_segment(5, 7)
    if freed:
        kept.forget(*range(1, 8))
    assert kept.read_with(reader) == kept.load() == before


@EITHER
def test_a_log_that_was_compacted_is_read_as_the_store_reads_it(kept: Kept, reader: str) -> None:
    before = kept.load()
    assert run(compact(kept.objects, FOLDER, writer="test", ids=Ids(1), everything=True)).segments
    kept.forget(*range(1, 10))
    assert len(run(list_spans(kept.objects, FOLDER))) == 1
    assert kept.read_with(reader) == kept.load() == before


def test_segments_that_overlap_are_read_as_the_store_reads_them(kept: Kept) -> None:
    before = kept.load()
    kept.put_segment(1, 6)
    kept.put_segment(3, 8)
    kept.forget(*range(1, 9))
    assert kept.read_with("read_plain.py") == kept.load() == before
    assert "an overlap" in kept.run("read_with_duckdb.py").stderr


@EITHER
@pytest.mark.parametrize("missing", [1, 5])
def test_a_hole_is_an_error(kept: Kept, reader: str, missing: int) -> None:
    kept.forget(missing)
    done = kept.run(reader)
    assert done.returncode == 1
    assert "hole" in done.stderr
    assert done.stdout == ""


@EITHER
def test_damage_is_an_error(kept: Kept, reader: str) -> None:
    file = kept.folder / part(4).file_name
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    done = kept.run(reader)
    assert (done.returncode, done.stdout) == (1, "")


def test_what_was_deleted_is_not_read_and_what_came_after_it_is(kept: Kept) -> None:
    kept.put_segment(1, 4)

    async def main() -> None:
        async with TranscriptStore.open(kept.url, scope="tap", settings=Settings.load()) as store:
            await store.delete(KEY)
            await store.append(KEY, [{"type": "user", "uuid": "again", "n": 3}])

    anyio.run(main)
    assert kept.read_with("read_plain.py") == kept.load() == [{"type": "user", "uuid": "again", "n": 3}]


def test_entries_that_json_libraries_get_wrong_are_read_by_plain_python(tmp_path: Path) -> None:
    odd = [{"text": "\ud83d unpaired", "n": int("7" * 70)}, {"text": "\u2028 \r\n \x00"}, [1], "text", None]
    kept = Kept(tmp_path / "store")

    async def main() -> None:
        async with TranscriptStore.open(kept.url, scope="tap", settings=Settings.load()) as store:
            await store.append(KEY, odd)  # type: ignore[arg-type]

    anyio.run(main)
    assert kept.read_with("read_plain.py")[-5:] == kept.load()[-5:] == odd


def test_duckdb_answers_questions(kept: Kept) -> None:
    done = kept.run("read_with_duckdb.py", "SELECT count(*) FROM entries WHERE entry->>'type' = 'assistant'")
    assert done.stdout.strip() == str(sum(entry["type"] == "assistant" for entry in kept.load()))


@EITHER
def test_readers_import_nothing_of_ours(reader: str) -> None:
    nodes = list(ast.walk(ast.parse((EXAMPLES / reader).read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    foreign = {"backports", "compression", "duckdb"}
    assert {name.split(".")[0] for name in names} <= set(sys.stdlib_module_names) | foreign
    assert names
