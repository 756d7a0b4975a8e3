"""The benchmark of searches, on little text."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.journal import search as bench

from everturn.mirrors.query import parse_query


@pytest.mark.slow
def test_it_builds_what_it_is_told_to_and_asks_all_kinds_of_searches(tmp_path: Path) -> None:
    told: list[int] = []
    found = bench.measure_search(tmp_path, size_bytes=2_000_000, queries=120, told=lambda done, _: told.append(done))
    assert 2_000_000 <= found["text_bytes"] < 6_000_000
    assert told[-1] >= 2_000_000
    assert found["all"]["searches"] == 120
    assert sum(kind["searches"] for kind in found["kinds"].values()) == 120
    assert {"rare_word", "common_word", "phrase", "beginning, filtered"} <= set(found["kinds"])
    assert found["all"]["p50_ms"] <= found["all"]["p99_ms"] <= found["all"]["max_ms"]


def test_the_same_seed_makes_the_same_text_and_the_same_searches() -> None:
    sources = [
        "def fox(): return 'red' and more words than that\n" * 20,
        "the zebra is striped, as far as one sees\n" * 20,
    ]
    twice = [[lines for _, lines in bench.Corpus(sources, 1).runs(20_000)] for _ in range(2)]
    assert twice[0] == twice[1]
    asked = [bench.Questions(sources, 1).draw(60) for _ in range(2)]
    assert asked[0] == asked[1]
    for each in asked[0]:
        parse_query(each.text)
