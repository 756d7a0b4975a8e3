"""What a run itself has spent: the agent command goes on counting where the run before it had stopped."""

from __future__ import annotations

from typing import Any

_LIMITS = {"contextWindow", "maxOutputTokens"}  # of a model, told beside what it has used


def spent(
    cost_usd: float | None, models: dict[str, Any], before_usd: float | None, before: dict[str, Any]
) -> tuple[float | None, dict[str, Any]]:
    """Return cost, and tokens and cost by model, without what earlier runs of the conversation had spent.

    Args:
        cost_usd: What the agent command says, for the whole conversation.
        models: The same by model, as `Result.model_usage` has it.
        before_usd: What the conversation had cost before this run. See `Resumed`.
        before: The same by model.

    Returns:
        Those of this run, without models that it has not used. If less is told than before, what is told: then the
        agent command has begun to count anew.
    """
    if not _goes_on(cost_usd, models, before_usd, before):
        return cost_usd, models
    used = {name: said for name, said in models.items() if name not in before or _is_more(said, before[name])}
    own = {name: _less(said, before[name]) if name in before else said for name, said in used.items()}
    return None if cost_usd is None else cost_usd - (before_usd or 0.0), own


def _goes_on(
    cost_usd: float | None, models: dict[str, Any], before_usd: float | None, before: dict[str, Any]
) -> bool:
    if cost_usd is not None and cost_usd < (before_usd or 0.0):
        return False
    counted = ((said, models[name]) for name, said in before.items() if name in models)
    return all(
        now.get(what, 0) >= number
        for said, now in counted
        if type(said) is dict and type(now) is dict
        for what, number in said.items()
        if _is_count(what, number) and _is_count(what, now.get(what, 0))
    )


def _less(said: Any, before: Any) -> Any:
    if type(said) is not dict or type(before) is not dict:
        return said
    return {
        name: value - before[name] if _is_count(name, value) and _is_count(name, before.get(name)) else value
        for name, value in said.items()
    }


def _is_more(said: Any, before: Any) -> bool:
    if type(said) is not dict or type(before) is not dict:
        return True
    more = _less(said, before)
    return any(more[what] for what in before if _is_count(what, more.get(what)))


def _is_count(name: str, value: Any) -> bool:
    return type(value) in (int, float) and name not in _LIMITS
