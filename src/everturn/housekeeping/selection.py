"""Which workdirs and sessions somebody means who names a work item, an agent, a repository, or all."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from everturn.errors import Invalid
from everturn.forges.places import same_repository
from everturn.model import SessionRecord, WorkItem, split_key
from everturn.workdirs.records import WorkdirRecord


@dataclass(frozen=True, slots=True)
class Selection:
    """What is meant. Several of them narrow each other down.

    Attributes:
        work: The key of a work item.
        agent: An agent's name.
        repo: A repository, spelled in any way; a local one by its absolute path.
        every: Whether all of them are meant.

    Raises:
        Invalid: Nothing is selected, or both all and some of them are, or a repository's URL has a password in it.
    """

    work: str | None = None
    agent: str | None = None
    repo: str | None = None
    every: bool = False

    def __post_init__(self) -> None:
        given = {name: value for name, value in asdict(self).items() if name != "every" and value is not None}
        if not given and not self.every:
            raise Invalid("nothing is selected", hint="name a work item, an agent or a repository, or say all")
        if given and self.every:
            raise Invalid("both all and some of them are selected", hint="do one of the two")
        for name, value in given.items():
            if not value.strip():
                raise Invalid(f"the {name} is empty", hint="name one, or leave it out")
        named = split_key(self.work or "")
        for repo in (self.repo, None if named is None else named[1]):
            WorkItem.task("any", repo=repo)  # which refuses one with a password: it would stand in logs

    def has(self, record: WorkdirRecord) -> bool:
        """Tell whether a workdir is meant."""
        return self.has_work(record.work_key, record.agent) and self._has_repository(record.repo)

    def has_session(self, record: SessionRecord) -> bool:
        """Tell whether a session is meant, as far as its key says. That of a task does not name its repository."""
        named = split_key(record.work_key)
        repo = "" if named is None else named[1]
        return self.has_work(record.work_key, record.agent) and self._has_repository(repo)

    def has_work(self, key: str, agent: str | None) -> bool:
        """Tell whether what belongs to a work item and an agent may be meant, wherever it is."""
        return self.work in (None, key) and self.agent in (None, agent)

    def facts(self) -> dict[str, Any]:
        """Return it as JSON has it, without what was not given."""
        return {name: value for name, value in asdict(self).items() if value not in (None, False)}

    def _has_repository(self, repo: str) -> bool:
        return self.repo is None or (repo != "" and same_repository(self.repo, repo))
