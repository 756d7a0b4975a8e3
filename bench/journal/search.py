"""How long searches take in a mirror of a gigabyte of text.

The text is real: sources and documents of Python and of the packages that are installed. It is cut into prompts,
answers and what tools answer, with sizes as transcripts have them, and goes through the real fold. The queries are
drawn from the text itself, by a seed, never from what is known of the index.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import shutil
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from everturn.journal.events import Assistant, Ended, Event, Init, Prompt, Started, ToolResult, ToolUse
from everturn.journal.lines import line_of
from everturn.journal.reading import RunRef
from everturn.mirrors.base import Batch
from everturn.mirrors.hits import Filters, Kind
from everturn.mirrors.query import parse_query
from everturn.mirrors.search import search
from everturn.mirrors.sqlite import SqliteMirror

SIZE_BYTES = 1_000_000_000
QUERIES = 2000
SEED = 6
GOAL_MS = 50.0
HITS = 10

_SUFFIXES = {".py", ".rst", ".txt", ".md", ".pyi"}
_LARGEST_BYTES = 2_000_000
_TOOLS = {"Bash": 50, "Read": 60, "Edit": 20, "Grep": 10, "WebFetch": 0.1}
_AGENTS, _REPOS, _DAYS = 40, 30, 120
_START_MS = 1_760_000_000_000
_DAY_MS = 86_400_000
_WORD = re.compile(r"[^\W_]{2,}")

Told = Callable[[int, int], None]


def texts() -> list[str]:
    """Return the sources and documents of this Python and its packages."""
    roots = {Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")}
    paths = {path for root in roots for path in root.rglob("*") if path.suffix in _SUFFIXES and path.is_file()}
    usable = (path for path in sorted(paths) if 0 < path.stat().st_size <= _LARGEST_BYTES)
    return [path.read_text(encoding="utf-8", errors="replace") for path in usable]


class Corpus:
    """Runs that say and do what stands in real texts.

    Args:
        sources: The texts.
        seed: Makes the same runs again.
    """

    def __init__(self, sources: Sequence[str], seed: int) -> None:
        self._sources = sources
        self._weights = [len(text) for text in sources]
        self._random = random.Random(seed)
        self.size_bytes = 0

    def runs(self, size_bytes: int) -> Iterator[tuple[RunRef, list[dict[str, Any]]]]:
        """Yield runs, until their texts are this large."""
        number = 0
        while self.size_bytes < size_bytes:
            number += 1
            run_id, work = f"{number:020x}", f"task:{number // 2}"
            at_ms = _START_MS + int(self._random.random() * _DAYS * _DAY_MS)
            events = self._events(run_id, work)
            yield (
                RunRef(work, run_id),
                [orjson.loads(line_of(event, seq, at_ms + 1000 * seq)) for seq, event in enumerate(events, 1)],
            )

    def _events(self, run_id: str, work: str) -> Iterator[Event]:
        agent = f"agent-{min(int(self._random.expovariate(0.2)), _AGENTS)}"
        repo = f"https://forge.example/acme/repo-{self._random.randrange(_REPOS)}"
        yield Started(run_id, work, f"session-{work}", 1, "worker-1", "/work", agent=agent, repo=repo)
        yield Init("session", "model", "/work", "2.1.0", "default", [])
        for turn in range(self._random.randrange(1, 12)):
            source = self._random.choices(self._sources, self._weights)[0]
            yield Prompt(self._cut(source, 6.0), resumed=False)
            for call in range(self._random.randrange(1, 30)):
                tool = self._random.choices(list(_TOOLS), list(_TOOLS.values()))[0]
                yield ToolUse(f"{turn}-{call}", tool, {"command": self._cut(source, 4.0)}, f"m{turn}-{call}", "model")
                yield ToolResult(f"{turn}-{call}", self._cut(source, 7.0))
                if self._random.random() < 0.4:
                    yield Assistant(self._cut(source, 5.5), f"m{turn}-{call}", "model")
        yield Ended("completed")

    def _cut(self, source: str, size: float) -> str:
        """Return a piece of a text, of some size whose logarithm is distributed normally."""
        length = int(self._random.lognormvariate(size, 1.2)) + 1
        start = self._random.randrange(max(1, len(source) - length))
        text = source[start : start + length]
        self.size_bytes += len(text.encode())
        return text


def build(folder: Path, *, size_bytes: int, seed: int, told: Told | None = None) -> SqliteMirror:
    """Return a mirror with texts of this size, made as a rebuild makes it."""
    mirror = SqliteMirror(folder, "bench://")
    corpus = Corpus(texts(), seed)
    with mirror.rebuilding("missing") as folding:
        assert folding is not None
        for ref, lines in corpus.runs(size_bytes):
            assert folding.fold(Batch(ref, lines, part=1))
            if told is not None:
                told(corpus.size_bytes, size_bytes)
    return mirror


@dataclass(frozen=True)
class Asked:
    """A search.

    Attributes:
        kind: What kind of search it is.
        text: What is typed.
        filters: Where.
    """

    kind: str
    text: str
    filters: Filters = field(default_factory=Filters)


class Questions:
    """Searches that people might make, drawn from what stands in a mirror.

    Args:
        samples: Some of its texts.
        seed: Makes the same searches again.
    """

    def __init__(self, samples: Sequence[str], seed: int) -> None:
        self._random = random.Random(seed)
        self._samples = [words for text in samples if len(words := _WORD.findall(text)) > 5]
        counts = Counter(word.lower() for words in self._samples for word in set(words))
        self._common = [word for word, _ in counts.most_common(200)]
        self._rare = [word for word, count in counts.items() if count == 1]

    def draw(self, count: int) -> list[Asked]:
        """Return this many, of all kinds alike."""
        kinds = [
            self._rare_word,
            self._common_word,
            self._any_word,
            self._two_words,
            self._five_words,
            self._common_words,
            self._phrase,
            self._common_phrase,
            self._beginning,
            self._excluded,
            self._nothing,
        ]
        plain = [Asked(make.__name__[1:], make()) for make in self._random.choices(kinds, k=count * 2 // 3)]
        drawn = self._random.choices(kinds, k=count - len(plain))
        return plain + [Asked(f"{make.__name__[1:]}, filtered", make(), self._filters()) for make in drawn]

    def _rare_word(self) -> str:
        return self._random.choice(self._rare)

    def _common_word(self) -> str:
        return self._random.choice(self._common)

    def _any_word(self) -> str:
        return self._random.choice(self._random.choice(self._samples))

    def _two_words(self) -> str:
        return " ".join(self._random.choices(self._random.choice(self._samples), k=2))

    def _five_words(self) -> str:
        return " ".join(self._random.choices(self._random.choice(self._samples), k=5))

    def _common_words(self) -> str:
        return " ".join(self._random.choices(self._common, k=3))

    def _phrase(self) -> str:
        words = self._random.choice(self._samples)
        start = self._random.randrange(len(words) - 3)
        return '"' + " ".join(words[start : start + self._random.choice([2, 3])]) + '"'

    def _common_phrase(self) -> str:
        return '"' + " ".join(self._random.choices(self._common, k=2)) + '"'

    def _beginning(self) -> str:
        while len(word := self._any_word()) < 4:
            pass
        return word[: self._random.randrange(3, len(word))] + "*"

    def _excluded(self) -> str:
        return f"{self._any_word()} -{self._random.choice(self._common)}"

    def _nothing(self) -> str:
        return f"{self._any_word()} zq{self._random.randrange(10**9)}x"

    def _filters(self) -> Filters:
        since_ms = _START_MS + int(self._random.random() * _DAYS * _DAY_MS)
        choices: list[dict[str, Any]] = [
            {"agent": f"agent-{self._random.randrange(_AGENTS)}"},
            {"agent": "agent-0"},
            {"repo": f"acme/repo-{self._random.randrange(_REPOS)}"},
            {"tool": self._random.choice(list(_TOOLS))},
            {"kind": self._random.choice(list(Kind))},
            {"since_ms": since_ms},
            {"since_ms": _START_MS + (_DAYS - 1) * _DAY_MS},
            {"agent": "agent-1", "tool": "Bash", "since_ms": since_ms},
        ]
        return Filters(**self._random.choice(choices))


def measure_search(
    folder: Path,
    *,
    size_bytes: int = SIZE_BYTES,
    queries: int = QUERIES,
    seed: int = SEED,
    told: Told | None = None,
) -> dict[str, Any]:
    """Build a mirror and search it.

    Args:
        folder: Where to make the mirror; nobody takes it away.
        size_bytes: How much text there is to be.
        queries: How many searches to make.
        seed: Makes the same again.
        told: Is told how much of the text there is, and how much there is to be.

    Returns:
        `text_bytes`, `texts`, `database_bytes`, `build_s`; `all` and, by kind, `kinds`: each with `searches`,
        `p50_ms`, `p99_ms` and `max_ms`, and the same in the processor's time (`cpu_…`), which other work on the
        machine hardly changes; `slowest`: the searches that took longest of that.
    """
    start = time.perf_counter()
    mirror = build(folder, size_bytes=size_bytes, seed=seed, told=told)
    build_s = time.perf_counter() - start
    return {**ask(mirror, queries=queries, seed=seed), "build_s": round(build_s, 1)}


def ask(mirror: SqliteMirror, *, queries: int, seed: int) -> dict[str, Any]:
    """Search a mirror that is there. See `measure_search`."""
    with mirror.reading() as database:
        (count, stored) = database.execute("SELECT count(*), sum(length(CAST(text AS BLOB))) FROM texts").fetchone()
        ids = [row[0] for row in database.execute("SELECT id FROM texts ORDER BY id")]
        drawn = random.Random(seed).sample(ids, min(3000, count))
        sql = "SELECT text FROM texts WHERE id IN (SELECT value FROM json_each(?))"
        samples = [row[0] for row in database.execute(sql, (json.dumps(drawn),))]
    asked = Questions(samples, seed).draw(queries)
    took = [(_ask(mirror, each), each) for each in asked]
    kinds = sorted({each.kind for each in asked})
    return {
        "text_bytes": stored,
        "texts": count,
        "database_bytes": mirror.path.stat().st_size,
        "all": _summary([ms for ms, _ in took]),
        "kinds": {kind: _summary([ms for ms, each in took if each.kind == kind]) for kind in kinds},
        "slowest": [
            {"ms": round(ms[0], 1), "cpu_ms": round(ms[1], 1), "kind": each.kind, "text": each.text}
            for ms, each in sorted(took, key=lambda pair: -pair[0][1])[:10]
        ],
    }


def _ask(mirror: SqliteMirror, asked: Asked) -> tuple[float, float]:
    """Return how long a search takes, from opening the file to the hits with their excerpts.

    Returns:
        Milliseconds, and those of them in which the processor was at work on it.
    """
    start, cpu_start = time.perf_counter(), time.thread_time()
    with mirror.reading() as database:
        database.execute("BEGIN")
        search(database, parse_query(asked.text), asked.filters, HITS)
    return (time.perf_counter() - start) * 1000, (time.thread_time() - cpu_start) * 1000


def _summary(took_ms: Sequence[tuple[float, float]]) -> dict[str, float]:
    ordered, cpu = (sorted(column) for column in zip(*took_ms, strict=True))
    return {
        "searches": len(ordered),
        "p50_ms": round(_quantile(ordered, 0.5), 1),
        "p99_ms": round(_quantile(ordered, 0.99), 1),
        "max_ms": round(ordered[-1], 1),
        "cpu_p50_ms": round(_quantile(cpu, 0.5), 1),
        "cpu_p99_ms": round(_quantile(cpu, 0.99), 1),
        "cpu_max_ms": round(cpu[-1], 1),
    }


def _quantile(ordered: Sequence[float], part: float) -> float:
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def main() -> None:
    """Measure, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=SIZE_BYTES, help="bytes of text")
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--folder", type=Path, default=None, help="where to make the mirror for the while")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="everturn-search-", dir=given.folder))
    try:
        found = measure_search(folder, size_bytes=given.size, queries=given.queries, seed=given.seed)
    finally:
        shutil.rmtree(folder)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
