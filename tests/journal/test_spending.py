"""What a run itself has spent of what the agent command counts for the whole conversation."""

from __future__ import annotations

from typing import Any

from everturn.journal.spending import spent

LIMITS = {"contextWindow": 200_000, "maxOutputTokens": 32_000}


def model(tokens: int, cost_usd: float, **more: Any) -> dict[str, Any]:
    return {"inputTokens": tokens, "costUSD": cost_usd, **more}


def test_limits_of_a_model_are_no_counts() -> None:
    before = {"a": model(10, 0.5, **LIMITS), "b": model(1, 0.25, **LIMITS)}
    now = {"a": model(30, 1.5, **LIMITS), "b": model(1, 0.25, **LIMITS)}
    assert spent(1.75, now, 0.75, before) == (1.0, {"a": model(20, 1.0, **LIMITS)})


def test_a_model_that_has_a_smaller_window_now_goes_on_counting() -> None:
    before = {"a": model(10, 0.5, contextWindow=1_000_000)}
    now = {"a": model(30, 1.5, **LIMITS)}
    assert spent(1.5, now, 0.5, before) == (1.0, {"a": model(20, 1.0, **LIMITS)})


def test_an_agent_command_that_has_begun_to_count_anew_is_believed() -> None:
    now = {"a": model(4, 0.75)}
    assert spent(0.75, now, 0.5, {"a": model(10, 0.5)}) == (0.75, now)


def test_what_is_no_number_does_not_make_a_model_one_that_was_used() -> None:
    assert spent(0.5, {"a": model(1, 0.5, tier="x")}, 0.5, {"a": model(1, 0.5, tier="x")}) == (0.0, {})
