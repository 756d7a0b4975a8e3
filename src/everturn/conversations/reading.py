"""Entries become a conversation. Whatever they hold, nothing is raised, and what is not known is counted."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from everturn.conversations.conversation import Branch, Conversation, Usage, moment
from everturn.conversations.threads import Entry, Threads, sort_out, text_of
from everturn.conversations.turns import Taken, TurnReader, add_usage, count
from everturn.log.reader import Log
from everturn.transcripts.marks import METADATA, type_of

MAX_AGENTS_DEEP = 20
KNOWN_TYPES = {
    "agent-color",
    "agent-name",
    "agent-setting",
    METADATA,
    "ai-title",
    "assistant",
    "atis-latch",
    "attachment",
    "cost-state",
    "custom-title",
    "file-history-snapshot",
    "last-prompt",
    "mode",
    "permission-mode",
    "pr-link",
    "progress",
    "queue-operation",
    "summary",
    "system",
    "tag",
    "tools-used",
    "user",
    "worktree-state",
}
_NOTED_TOKENS = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheCreationInputTokens")


def read_conversation(
    entries: Sequence[Any], agents: Mapping[str, Sequence[Any]] | None = None, claims: Sequence[Taken] = ()
) -> Conversation:
    """Return the conversation that entries hold.

    Args:
        entries: A session's main transcript.
        agents: Its sub-transcripts, by subpath.
        claims: The claims that were taken on it, in order.
    """
    return _Reader(agents or {}).read(entries, claims)


def claims_in(log: Log) -> list[Taken]:
    """Return the claims that were taken on a log, each with the number of entries before it."""
    found: list[Taken] = []
    done = index = 0
    for part in log.parts:
        span, header = part.header.span, part.header
        notes = header.parts or ((header.epoch, header.write_id, header.count, header.kind),)
        for seq, (epoch, _, entries, kind) in enumerate(notes, span.first):
            if seq <= max(done, log.start - 1):  # segments may overlap, and hold nothing from before a truncation
                continue
            if kind == "fence":
                found.append(Taken(epoch, index))
            index += entries
        done = span.last
    return found


class _Reader:
    """Reads a transcript, and those of subagents as it meets the calls that started them, each once."""

    def __init__(self, agents: Mapping[str, Sequence[Any]]) -> None:
        self._waiting = dict(agents)
        self._by_call: dict[str, str] = {}
        self._by_agent: dict[str, str] = {}
        for subpath, entries in agents.items():
            if call_id := text_of(_metadata(entries).get("toolUseId")):
                self._by_call[call_id] = subpath
            self._by_agent[subpath.rsplit("/", 1)[-1].removeprefix("agent-")] = subpath
        self._depth = 0

    def read(self, entries: Sequence[Any], claims: Sequence[Taken]) -> Conversation:
        """Read the main transcript."""
        found = self._read(entries, None, claims)
        loose: list[Conversation] = []
        while self._waiting:
            loose.append(self._agent(next(iter(self._waiting))))
        found = replace(found, agents=tuple(loose))
        return replace(found, cost_is_partial=found.cost_usd is not None and _spent_more(found, entries))

    def find_agent(self, call_id: str, agent_id: str) -> Conversation | None:
        """Return what the subagent said that a call has started, if its transcript is there and not taken yet."""
        subpath = self._by_call.get(call_id) or (self._by_agent.get(agent_id) if agent_id else None)
        if subpath not in self._waiting or self._depth >= MAX_AGENTS_DEEP:
            return None
        return self._agent(subpath)

    def _agent(self, subpath: str) -> Conversation:
        self._depth += 1
        found = self._read(self._waiting.pop(subpath), subpath, ())
        self._depth -= 1
        return found

    def _read(self, entries: Sequence[Any], subpath: str | None, claims: Sequence[Taken]) -> Conversation:
        threads = sort_out(entries, of_agent=subpath is not None)
        for agent_id, sidechain in threads.sidechains.items():
            self._set_aside(agent_id, sidechain)
        reader = TurnReader(self.find_agent, claims)
        turns = reader.read(threads.main)
        branches, unknown = self._branches(threads, reader)
        metadata = _metadata(entries)
        objects = [entry for entry in entries if isinstance(entry, dict)]
        times = [entry["timestamp"] for entry in objects if moment(entry.get("timestamp"))]
        times.sort(key=lambda text: moment(text) or 0)
        return Conversation(
            name=text_of(metadata.get("description")) or text_of(metadata.get("agentType")),
            subpath=subpath,
            turns=turns,
            branches=branches,
            usage=_usage(objects, of_agent=subpath is not None),
            cost_usd=_cost(objects),
            first_at=times[0] if times else None,
            last_at=times[-1] if times else None,
            entries=dict(Counter(map(_type_of, entries))),
            unknown=dict(
                unknown + Counter(kind for entry in entries if (kind := _type_of(entry)) not in KNOWN_TYPES)
            ),
            broken_links=threads.broken_links,
        )

    def _set_aside(self, agent_id: str, sidechain: list[Any]) -> None:
        """Keep a subagent that is part of the main transcript, as agent commands of old wrote it."""
        subpath = f"agent-{agent_id}" if agent_id else "sidechain"
        if subpath not in self._waiting:
            self._waiting[subpath] = sidechain
            self._by_agent.setdefault(agent_id, subpath)

    def _branches(self, threads: Threads, main: TurnReader) -> tuple[tuple[Branch, ...], Counter[str]]:
        found: list[Branch] = []
        unknown = Counter(main.unknown)
        for fork in threads.forks:
            reader = TurnReader(self.find_agent)
            found.append(Branch(main.number_at(fork.parent), reader.read(fork.nodes)))
            unknown += reader.unknown
        return tuple(found), unknown


def _usage(objects: Sequence[Entry], *, of_agent: bool) -> Usage:
    usages: dict[str, Usage] = {}
    for entry in objects:
        if entry.get("type") == "assistant" and (of_agent or not entry.get("isSidechain")):
            add_usage(usages, entry)
    return sum(usages.values(), Usage())


def _cost(objects: Sequence[Entry]) -> float | None:
    """Return the cost that was noted last: it is the sum of what came before."""
    costs = [entry.get("totalCostUSD") for entry in objects if entry.get("type") == "cost-state"]
    known = (cost for cost in reversed(costs) if isinstance(cost, int | float) and 0 <= cost <= sys.float_info.max)
    return next(map(float, known), None)


def _spent_more(found: Conversation, entries: Sequence[Any]) -> bool:
    """Tell whether more tokens were used than those whose cost was noted, or some have no known price."""
    notes = [entry for entry in entries if isinstance(entry, dict) and entry.get("type") == "cost-state"]
    by_model = notes[-1].get("modelUsage")
    models = [each for each in by_model.values() if isinstance(each, dict)] if isinstance(by_model, dict) else []
    noted = sum(count(model.get(name)) for model in models for name in _NOTED_TOKENS)
    return notes[-1].get("hasUnknownModelCost") is True or found.usage_with_agents.total_tokens > noted


def _metadata(entries: Sequence[Any]) -> Entry:
    """Return the note that says what a subagent was called on for; it is written anew as things change."""
    return next((each for each in reversed(entries) if type_of(each) == METADATA), {})


def _type_of(entry: Any) -> str:
    kind = entry.get("type") if isinstance(entry, dict) else None
    return kind if isinstance(kind, str) else "(no type)"
