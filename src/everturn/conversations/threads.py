"""Which entries of a transcript make up its conversation.

Entries name their parent. The conversation is the way from the last thing that was said back to the root. Beside it
lie the answers of tools that ran side by side (each hangs on its own call, so that the transcript forks, and the way
back meets only one of them), what was taken back, and, in transcripts of older agent commands, subagents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Entry = dict[str, Any]
SPOKEN = ("user", "assistant")


@dataclass(slots=True)
class Node:
    """An entry in its place.

    Attributes:
        index: Where it stands in the transcript.
        entry: The entry.
        parent: The index of the node that it follows, if any.
    """

    index: int
    entry: Entry
    parent: int | None = None

    @property
    def spoken(self) -> bool:
        """Whether somebody said something, in place of a note."""
        return self.entry.get("type") in SPOKEN


@dataclass(frozen=True, slots=True)
class Fork:
    """What was taken back: its nodes, and the node it hangs on."""

    parent: int | None
    nodes: list[Node]


@dataclass(slots=True)
class Threads:
    """The nodes of a transcript, sorted out. Each is in one place."""

    main: list[Node] = field(default_factory=list)
    forks: list[Fork] = field(default_factory=list)
    sidechains: dict[str, list[Any]] = field(default_factory=dict)
    broken_links: int = 0


def sort_out(entries: Sequence[Any], *, of_agent: bool) -> Threads:
    """Sort out the entries of a transcript.

    Args:
        entries: The entries; those that are no part of the conversation are passed over.
        of_agent: Whether it is a subagent's transcript. In a main one, subagents' entries are set aside.
    """
    threads = Threads()
    nodes: dict[int, Node] = {}
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or not (isinstance(entry.get("uuid"), str) or entry.get("type") in SPOKEN):
            continue
        if entry.get("isSidechain") and not of_agent:
            threads.sidechains.setdefault(text_of(entry.get("agentId")), []).append(entry)
        else:
            nodes[index] = Node(index, entry)
    threads.broken_links = _link(nodes)
    reached = _way_back(nodes)
    _take_in_answers(nodes, reached)
    threads.main = [nodes[index] for index in sorted(reached)]
    threads.forks = _forks(nodes, reached)
    return threads


def blocks(entry: Entry, kind: str) -> Iterator[dict[str, Any]]:
    """Return an entry's blocks of a type."""
    message = entry.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict) and block.get("type") == kind:
            yield block


def text_of(value: Any) -> str:
    """Return a value that should be text; nothing if it is something else, as entries may hold anything anywhere."""
    return value if isinstance(value, str) else ""


def message_id(entry: Entry) -> str | None:
    """Return the id of the model's answer that an entry is a piece of."""
    message = entry.get("message")
    found = message.get("id") if isinstance(message, dict) and entry.get("type") == "assistant" else None
    return found if isinstance(found, str) and found else None


def _link(nodes: dict[int, Node]) -> int:
    """Find each node's parent, and count those whose parent is not there: they follow what stands before them."""
    by_uuid: dict[str, int] = {}
    broken = 0
    previous: int | None = None
    for node in nodes.values():
        entry = node.entry
        named = entry.get("parentUuid")
        compaction = entry.get("subtype") == "compact_boundary"
        if compaction:
            named = named or entry.get("logicalParentUuid")
        if isinstance(named, str) and named in by_uuid:
            node.parent = by_uuid[named]
        elif compaction or named is not None or "parentUuid" not in entry:
            node.parent = previous
            broken += named is not None
        if isinstance(entry.get("uuid"), str):
            by_uuid[entry["uuid"]] = node.index
        previous = node.index
    return broken


def _way_back(nodes: dict[int, Node]) -> set[int]:
    """Return the way from the last thing that was said to the root. It ends, as parents stand before children."""
    said = [node for node in nodes.values() if node.spoken and not node.entry.get("teamName")]
    at: int | None = said[-1].index if said else next(reversed(nodes), None)
    reached: set[int] = set()
    while at is not None:
        reached.add(at)
        at = nodes[at].parent
    return reached


def _take_in_answers(nodes: dict[int, Node], reached: set[int]) -> None:
    """Reach the other pieces of answers on the way, what tools said to them, and the notes beside it."""
    on_the_way = [nodes[index].entry for index in reached]
    answers = {message_id(entry) for entry in on_the_way} - {None}
    answered = {called for entry in on_the_way for called in _calls(entry, "tool_result", "tool_use_id")}
    asked: set[str] = set()
    for node in nodes.values():
        results = _calls(node.entry, "tool_result", "tool_use_id")
        if node.index in reached or message_id(node.entry) in answers:
            asked |= _calls(node.entry, "tool_use", "id")
        elif not (results & asked - answered or (not node.spoken and node.parent in reached)):
            continue
        reached.add(node.index)
        answered |= results


def _calls(entry: Entry, kind: str, name: str) -> set[str]:
    return {block[name] for block in blocks(entry, kind) if isinstance(block.get(name), str)}


def _forks(nodes: dict[int, Node], reached: set[int]) -> list[Fork]:
    """Gather what was not reached by where it leaves the conversation."""
    root_of: dict[int, int] = {}
    forks: dict[int, Fork] = {}
    for node in nodes.values():
        if node.index in reached:
            continue
        parent = node.parent
        root = root_of[parent] if parent is not None and parent in root_of else node.index
        root_of[node.index] = root
        forks.setdefault(root, Fork(parent, [])).nodes.append(node)
    return [fork for fork in forks.values() if any(node.spoken for node in fork.nodes)]
