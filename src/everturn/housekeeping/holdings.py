"""What the workdirs of this machine and the sessions of the registry are about, at a moment, and quickly found."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Self, TypeVar

from everturn.errors import Invalid
from everturn.forges.places import place_of
from everturn.model import SessionRecord, split_key
from everturn.workdirs.names import Target
from everturn.workdirs.records import WorkdirRecord

Key = TypeVar("Key")
Names = Mapping[str, tuple[str, ...]]
Found = Mapping[tuple[str, str], tuple[str, ...]]

_TREE = re.compile(r"/trees/([a-z0-9-]+)(?=/|$)")

place = lru_cache(maxsize=4096)(place_of)


def ref_of(record: WorkdirRecord) -> str:
    """Return the remote's name for what a workdir shows; empty if that is its default branch, or a commit."""
    try:
        return "" if record.branch is None else Target.parse(record.branch).ref
    except Invalid:  # it was found in a workdir, and nobody can ask for it
        return ""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What there is. It gets old: whoever changes something by it looks at that again.

    Attributes:
        workdirs: What is noted about the workdirs, by their names.
        sessions: What the registry knows, stale sessions too, by the keys of their work items.
        by_number: The keys of the work items of an issue, by the place of its repository and its number.
        by_ref: The workdirs that show a ref, by the place of its repository and its full name.
        by_work: The workdirs whose last run was of a work item, by its key.
        inside: The keys of the work items whose last run was in a workdir of a name, on whichever machine.
    """

    workdirs: Mapping[str, WorkdirRecord]
    sessions: Mapping[str, SessionRecord]
    by_number: Found
    by_ref: Found
    by_work: Names
    inside: Names

    @classmethod
    def of(cls, workdirs: Iterable[WorkdirRecord], sessions: Iterable[SessionRecord]) -> Self:
        """Return them, indexed."""
        trees = {record.name: record for record in workdirs}
        known = {record.work_key: record for record in sessions}
        by_number: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        by_ref: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        by_work: defaultdict[str, list[str]] = defaultdict(list)
        inside: defaultdict[str, list[str]] = defaultdict(list)
        for record in trees.values():
            by_work[record.work_key].append(record.name)
            ref = ref_of(record)
            if ref:
                by_ref[place(record.repo), ref].append(record.name)
        for key in {**known, **by_work}:
            named = split_key(key)
            if named is not None:
                by_number[place(named[1]), named[2]].append(key)
        for session in known.values():
            for name in _TREE.findall(session.cwd or ""):
                inside[name].append(session.work_key)
        return cls(trees, known, _frozen(by_number), _frozen(by_ref), _frozen(by_work), _frozen(inside))

    def sessions_in(self, record: WorkdirRecord) -> set[str]:
        """Return the keys of the work items whose sessions a workdir holds: those whose last run was in it.

        Among them is that which is noted with it, unless its session has moved on to another workdir.
        """
        session = self.sessions.get(record.work_key)
        inside = set(self.inside.get(record.name, ()))
        has_moved = session is not None and session.cwd is not None and record.work_key not in inside
        return inside if has_moved or not record.work_key else {*inside, record.work_key}


def _frozen(lists: Mapping[Key, list[str]]) -> dict[Key, tuple[str, ...]]:
    return {key: tuple(values) for key, values in lists.items()}
