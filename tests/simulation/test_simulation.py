"""The real protocol keeps its promises in simulated worlds (docs/simulation.md)."""

from __future__ import annotations

from collections import Counter

import pytest

from simulation.__main__ import play_some
from simulation.actors import Protocol
from simulation.scenario import Scenario, play
from simulation.themes import CLEARING, DEAF, DOZERS, LATE_CLAIMS, RESTORED, SLEEPERS, Theme

INTERESTING = (
    "acknowledged",
    "appends given up",
    "batches dropped",
    "busy",
    "crashes",
    "damage reported",
    "deletions",
    "failed",
    "freed numbers taken",
    "halved deletes",
    "late",
    "lost reply",
    "numbers taken by others",
    "parts freed",
    "parts: truncate",
    "reads",
    "repeated uuids",
    "rot",
    "segments",
    "segments freed",
    "slow",
    "suspended after",
    "suspended before",
    "takeovers",
    "throttled",
    "worlds at rest",
    "writers fenced",
)


@pytest.mark.slow
def test_no_promise_is_broken_and_the_interesting_things_happen() -> None:
    total = play_some(range(1, 101))
    assert total.violations == []
    assert [name for name in INTERESTING if not total.counts[name]] == []
    assert total.operations > 30_000


def test_of_equal_claims_the_one_that_opened_last_writes() -> None:
    counts: Counter[str] = Counter()
    for seed in range(1, 9):
        counts += play(seed, theme=RESTORED).counts
    assert counts["writers fenced"] > 5


@pytest.mark.slow
@pytest.mark.parametrize("first", [1_000, 2_000, 3_000, 4_000])
def test_no_promise_is_broken_in_a_longer_run(first: int) -> None:
    assert play_some(range(first, first + 500)).violations == []


@pytest.mark.slow
@pytest.mark.parametrize("theme", [LATE_CLAIMS, SLEEPERS, DOZERS, DEAF, CLEARING, RESTORED])
def test_the_unbroken_protocol_passes_the_seeds_that_mutants_fail(theme: Theme) -> None:
    counts: Counter[str] = Counter()
    for seed in range(1, 201):
        counts += play(seed, theme=theme).counts
    assert counts["acknowledged"] > 1_000


def history(seed: int) -> list[tuple[float, str, str, str, str]]:
    scenario = Scenario(seed, Protocol())
    scenario.play()
    return [*scenario.world.trace, (scenario.world.now, str(scenario.world.operations), "", "", "")]


@pytest.mark.slow
def test_a_seed_is_the_whole_history() -> None:
    assert [history(seed) for seed in range(10, 20)] == [history(seed) for seed in range(10, 20)]
    assert history(10) != history(11)
