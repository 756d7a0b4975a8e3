"""The values that are handed around. Frozen, and checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass

from everturn.errors import Invalid


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A piece of work that one conversation belongs to.

    Either an issue that an agent works on in a repository, or a task with an id of its own (`WorkItem.task`).

    Args:
        agent: The agent's name; no `@`, `:`.
        repo: The repository, as git takes it: a URL or a path.
        issue: The issue's number or name; no `#`.

    Raises:
        Invalid: Something is missing or holds a character that it must not.
    """

    agent: str | None = None
    repo: str | None = None
    issue: str | int | None = None
    task_id: str | None = None

    def __post_init__(self) -> None:
        if self.task_id is not None:
            self._check_task()
        else:
            self._check_issue()

    @classmethod
    def task(cls, task_id: str, *, agent: str | None = None, repo: str | None = None) -> WorkItem:
        """Return a work item that is known by an id alone.

        Args:
            task_id: The id.
            agent: Who works on it; for people.
            repo: The repository to work in, if any.
        """
        return cls(agent, repo, task_id=task_id)

    @property
    def key(self) -> str:
        """The text that identifies the work item everywhere: `task:<id>` or `<agent>@<repo>#<issue>`."""
        if self.task_id is not None:
            return f"task:{self.task_id}"
        return f"{self.agent}@{self.repo}#{self.issue}"

    def _check_task(self) -> None:
        if not (self.task_id or "").strip():
            raise Invalid("the work item has an empty task id", hint="give it an id: --task ID or WorkItem.task(id)")
        if self.issue is not None:
            raise Invalid("the work item has both a task and an issue", hint="give one of the two")

    def _check_issue(self) -> None:
        if self.issue is None or not str(self.issue).strip():
            raise Invalid("the work item has no issue and no task", hint="give --issue or --task")
        if not (self.repo or "").strip():
            raise Invalid("the work item has an issue but no repository", hint="give --repo, or use --task instead")
        if not (self.agent or "").strip():
            raise Invalid("the work item has an issue but no agent", hint="give --agent, or use --task instead")
        if set("@:") & set(self.agent or ""):
            raise Invalid(f"the agent's name {self.agent!r} has '@' or ':' in it", hint="leave them out")
        if "#" in str(self.issue):
            raise Invalid(f"the issue {self.issue!r} has '#' in it", hint="give the number alone")


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """What the registry knows about the conversation of a work item. Times are seconds since the Unix epoch.

    Attributes:
        work_key: `WorkItem.key`.
        session_id: The conversation's id, chosen by us before the agent first starts.
        epoch: How often the work item was claimed; the latest claim has this number.
        worker: Who claimed it last.
        cwd: The working directory of the latest run, once it is known.
        created_at: When the work item was first claimed.
        last_used_at: When a run last said that it uses the session.
    """

    work_key: str
    session_id: str
    epoch: int
    worker: str
    cwd: str | None
    created_at: float
    last_used_at: float


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write a work item's session, until somebody claims it with a higher epoch.

    Attributes:
        work: The work item.
        session_id: Its conversation.
        epoch: The fencing token, from 1.
        is_new: Whether this claim made the session.
    """

    work: WorkItem
    session_id: str
    epoch: int
    is_new: bool
