"""What a run has used: tokens and cost, by model, as far as it was told.

A result tells of the whole conversation so far, so the last one counts, without what the conversation had used before
this run. What a run used after its last result is known from the answers alone: each tells its tokens so far, several
times, and they only grow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from everturn.journal.spending import spent
from everturn.mirrors.values import amount, clean, count_of

Tokens = list[int]  # in, out, read from the cache, written to it

_NAMES = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_NAMES_BY_MODEL = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheCreationInputTokens")
_UNKNOWN = "unknown"


@dataclass(slots=True)
class Usage:
    """What a run has used so far. Plain values only: it is stored between batches.

    Attributes:
        earlier: Tokens of conversations that were given up, by model.
        earlier_costs: What they cost, by model.
        earlier_usd: What they cost in all; `None`: nobody said.
        reported: Tokens by model, as the last result said.
        costs: What each model has cost, as the last result said.
        cost_usd: What the conversation has cost, as the last result said.
        unnamed: Tokens of results that did not name models; the next one that does includes them.
        answers: The turn, the model and the tokens of each answer since the last result, by its id.
        before_usd: What the conversation had cost when the run began.
        before: The same by model, with tokens, as results name them.
        lost: Whether some of the cost will never be known.
    """

    earlier: dict[str, Tokens] = field(default_factory=dict)
    earlier_costs: dict[str, float] = field(default_factory=dict)
    earlier_usd: float | None = None
    reported: dict[str, Tokens] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    cost_usd: float | None = None
    unnamed: dict[str, Tokens] = field(default_factory=dict)
    answers: dict[str, list[Any]] = field(default_factory=dict)
    before_usd: float | None = None
    before: dict[str, dict[str, Any]] = field(default_factory=dict)
    lost: bool = False

    def go_on_from(self, cost_usd: float | None, models: dict[str, Any]) -> None:
        """Note what the conversation had used before this run."""
        self.before_usd = cost_usd
        self.before = {
            clean(name): {what: count_of(said.get(what)) for what in _NAMES_BY_MODEL}
            | {"costUSD": amount(said.get("costUSD")) or 0.0}
            for name, said in models.items()
            if type(said) is dict
        }

    def note_answer(self, message_id: str | None, turn: int | None, model: str | None, usage: dict[str, Any]) -> None:
        """Note the tokens that an answer has taken so far."""
        tokens = tokens_of(usage)
        known = self.answers.setdefault(message_id or "", [turn, model or _UNKNOWN, [0, 0, 0, 0]])
        known[1] = (model or _UNKNOWN) if known[1] == _UNKNOWN else known[1]
        known[2] = [max(pair) for pair in zip(known[2], tokens, strict=True)]

    def note_result(
        self, cost_usd: float | None, usage: dict[str, Any], models: dict[str, Any], model: str | None
    ) -> None:
        """Note what a result said."""
        self.answers.clear()
        named = {clean(name): said for name, said in models.items() if type(said) is dict}
        cost_usd, named = spent(cost_usd, named, self.before_usd, self.before)
        if cost_usd is not None:
            self.cost_usd = cost_usd
        if named:
            self.unnamed.clear()
            self.reported = {
                name: [count_of(said.get(each)) for each in _NAMES_BY_MODEL] for name, said in named.items()
            }
            said_costs = {name: amount(said.get("costUSD")) for name, said in named.items()}
            self.costs = {name: cost for name, cost in said_costs.items() if cost is not None}
        else:
            _add(self.unnamed, model or _UNKNOWN, tokens_of(usage))

    def begin_anew(self) -> None:
        """Note that another conversation begins: what is told from now on starts at nothing."""
        self.lost = self.lost or bool(self.answers)
        for model, tokens in self._current():
            _add(self.earlier, model, tokens)
        for model, cost in self.costs.items():
            self.earlier_costs[model] = self.earlier_costs.get(model, 0.0) + cost
        self.earlier_usd = self.total_usd
        self.cost_usd = self.before_usd = None
        for gone in (self.reported, self.costs, self.unnamed, self.answers, self.before):
            gone.clear()

    @property
    def total_usd(self) -> float | None:
        """What the run has cost, as far as it was told."""
        if self.cost_usd is None or self.earlier_usd is None:
            return self.earlier_usd if self.cost_usd is None else self.cost_usd
        return self.earlier_usd + self.cost_usd

    @property
    def is_partial(self) -> bool:
        """Whether it has used more than the cost says."""
        return self.lost or any(any(tokens) for _, _, tokens in self.answers.values())

    def by_model(self) -> dict[str, tuple[Tokens, float | None]]:
        """Return tokens and cost by model, in the order of their names."""
        found: dict[str, Tokens] = {model: list(tokens) for model, tokens in self.earlier.items()}
        for model, tokens in self._current():
            _add(found, model, tokens)
        costs = dict(self.earlier_costs)
        for model, cost in self.costs.items():
            costs[model] = costs.get(model, 0.0) + cost
        return {model: (found[model], costs.get(model)) for model in sorted(found)}

    def of_turn(self, turn: int) -> Tokens:
        """Return the tokens of a turn's answers that no result has covered yet."""
        total = [0, 0, 0, 0]
        for of, _, tokens in self.answers.values():
            if of == turn:
                total = plus(total, tokens)
        return total

    def _current(self) -> Iterator[tuple[str, Tokens]]:
        yield from self.reported.items()
        yield from self.unnamed.items()
        for _, model, tokens in self.answers.values():
            yield model, tokens


def tokens_of(usage: dict[str, Any]) -> Tokens:
    """Return the tokens that the model's interface tells of."""
    return [count_of(usage.get(name)) for name in _NAMES]


def plus(one: Tokens, other: Tokens) -> Tokens:
    """Return the sums."""
    return [left + right for left, right in zip(one, other, strict=True)]


def _add(to: dict[str, Tokens], model: str, tokens: Tokens) -> None:
    to[model] = plus(to.get(model, [0, 0, 0, 0]), tokens)
