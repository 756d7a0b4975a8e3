"""The simulation notices broken protocols: that is how we know that it can fail (docs/simulation.md)."""

from __future__ import annotations

import re

import pytest

from simulation.mutants import MUTANTS, Mutant
from simulation.oracle import Violation
from simulation.scenario import play


@pytest.mark.slow
@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(
            each, id=each.name, marks=[pytest.mark.slow, pytest.mark.timeout(900)] if each.seeds > 100 else []
        )
        for each in MUTANTS
    ],
)
def test_the_simulation_catches_a_protocol_with(mutant: Mutant) -> None:
    caught = mutant.hunt()
    assert caught is not None, f"not caught within {mutant.seeds} seeds"
    seed, violation = caught
    assert play(seed, theme=mutant.theme).operations > 0  # the unbroken protocol passes
    assert f"make simulate SEED={seed}" in str(violation)


def test_a_violation_tells_the_seed_and_what_came_before() -> None:
    (mutant,) = (each for each in MUTANTS if each.name == "fences are ignored")
    caught = mutant.hunt()
    assert caught is not None
    seed, violation = caught
    assert isinstance(violation, Violation)
    assert violation.promise == "I4"
    assert f"seed {seed}, request" in violation.what
    assert re.search(r"claim 1 +create +0000000094.jsonl.zst +created", violation.what)
