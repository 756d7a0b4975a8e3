"""The benchmark of webhooks under load, at a small size: what was accepted is done once, whatever is killed."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.service.load import Plan, measure


@pytest.mark.slow
def test_what_was_accepted_before_a_kill_and_after_it_is_done_exactly_once(tmp_path: Path) -> None:
    plan = Plan(rate=300, seconds=2, held=5)
    result = measure(plan, tmp_path)
    assert result.is_right, result.table()
    assert result.sent == plan.count
    assert result.accepted == {f"delivery-{plan.delivery(place)}" for place in range(plan.count)}
    assert set(result.answers) <= {"200", "202", "refused", "broken"}
    assert (result.done, result.twice) == (len(result.accepted), 0)
    assert result.meant >= plan.held - 1
    assert result.left == 0
