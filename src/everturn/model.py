"""The values that are handed around. Frozen, and checked when they are made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from everturn.errors import Invalid

ForgeName = Literal["github", "gitea", "forgejo", "gitlab"]


def check_name(name: str, what: str) -> None:
    """Refuse a name from outside that could not safely become part of a path or a key.

    Args:
        name: The name.
        what: What to call it in the error.

    Raises:
        Invalid: It is empty, has `.` or `..` as a component, has a control character, or is not valid Unicode.
    """
    if not name.strip():
        raise Invalid(f"the {what} is empty", hint=f"give the {what} a name")
    if any(piece in (".", "..") for piece in re.split(r"[/\\]", name)):
        raise Invalid(f"the {what} {name!r} would climb out of its folder", hint="leave out '.' and '..'")
    if any(ord(char) < 32 or ord(char) == 127 for char in name):
        raise Invalid(f"the {what} {name!r} has a control character", hint="use printable characters")
    if any(0xD800 <= ord(char) <= 0xDFFF for char in name):
        raise Invalid(f"the {what} {name!r} is not valid Unicode", hint="leave out unpaired surrogates")


def repository_name(repo: str) -> str:
    """Return one name for the ways a repository's URL or path is commonly spelled."""
    pieces = urlsplit(repo)
    if pieces.scheme and pieces.netloc:
        repo = f"{pieces.scheme}://{pieces.netloc.lower()}{pieces.path}"
    return repo.rstrip("/").removesuffix("/.git").removesuffix(".git").rstrip("/") or repo


def shown_url(url: str) -> str:
    """Return a URL as a message may show it: without what stands before an `@`, and what options are set to."""
    place, mark, options = re.sub(r"//.*@", "//…@", url, flags=re.DOTALL).partition("?")
    return place + mark + re.sub(r"=[^&]*", "=…", options)


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
        self._check_repo()

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
        """The text that identifies the work item everywhere: `task:<id>` or `<agent>@<repo>#<issue>`.

        A final slash or `.git`, and capitals in the host's name, make no difference to it.
        """
        if self.task_id is not None:
            return f"task:{self.task_id}"
        return f"{self.agent}@{repository_name(self.repo or '')}#{self.issue}"

    def _check_task(self) -> None:
        check_name(self.task_id or "", "task id")
        if self.issue is not None:
            raise Invalid("the work item has both a task and an issue", hint="give one of the two")

    def _check_issue(self) -> None:
        if self.issue is None or not str(self.issue).strip():
            raise Invalid("the work item has no issue and no task", hint="give --issue or --task")
        if not (self.repo or "").strip():
            raise Invalid("the work item has an issue but no repository", hint="give --repo, or use --task instead")
        if not (self.agent or "").strip():
            raise Invalid("the work item has an issue but no agent", hint="give --agent, or use --task instead")
        check_name(str(self.issue), "issue")
        check_name(self.agent or "", "agent's name")
        if set("@:") & set(self.agent or ""):
            raise Invalid(f"the agent's name {self.agent!r} has '@' or ':' in it", hint="leave them out")
        if "#" in str(self.issue):
            raise Invalid(f"the issue {self.issue!r} has '#' in it", hint="give the number alone")

    def _check_repo(self) -> None:
        if self.repo is None:
            return
        if not self.repo.isprintable():
            raise Invalid("the repository's name has a character that cannot be printed", hint="leave it out")
        try:
            secret = urlsplit(self.repo).password
        except ValueError as error:
            raise Invalid(f"the repository's URL is wrong: {error}", hint="give a URL or a path") from None
        if secret:
            raise Invalid(
                "the repository's URL has a password in it",
                hint="leave it out: it would stand in names and logs; let git's credential helper supply it",
            )
        if self.repo.strip() and not repository_name(self.repo).strip():
            raise Invalid(f"the repository {self.repo!r} has no name", hint="give a URL or a path")


def split_key(key: str) -> tuple[str, str, str] | None:
    """Return the agent, the repository and the issue that a work item's key names; `None`: it is one of a task."""
    agent, at, rest = key.partition("@")
    repo, hash_sign, issue = rest.rpartition("#")
    return (agent, repo, issue) if at and hash_sign and ":" not in agent else None


@dataclass(frozen=True, slots=True)
class RepositoryOptions:
    """How a repository is checked out.

    Attributes:
        sparse: The folders to check out; or, if one of them has a special character in it, patterns as in
            `.gitignore`. Nothing: everything.
        blobless: Whether the contents of files are fetched only once somebody needs them.
        depth: How many commits of each branch to fetch; `None`: all.
        submodules: Whether to check out submodules, too.
        lfs: Whether to fetch large files (Git LFS); they are left as pointers if not.
        keep_ignored: Whether what git ignores, such as what was built, stays when another conversation begins.
    """

    sparse: tuple[str, ...] = ()
    blobless: bool = False
    depth: int | None = None
    submodules: bool = False
    lfs: bool = False
    keep_ignored: bool = True

    def __post_init__(self) -> None:
        if self.depth is not None and self.depth < 1:
            raise Invalid(f"the depth {self.depth} is not positive", hint="leave it out to have all commits")
        for pattern in self.sparse:
            if not pattern.strip() or not pattern.isprintable():
                raise Invalid(f"the sparse pattern {pattern!r} is empty or cannot be printed", hint="name a folder")


@dataclass(frozen=True, slots=True)
class GitCredential:
    """Where the token for a remote comes from: exactly one of the two. It is read again each time git needs it.

    Attributes:
        token_env: The variable that has it.
        token_file: The file that has it, and nothing else.
        username: What the remote wants beside it; forges take any name.
    """

    token_env: str | None = None
    token_file: str | None = None
    username: str = "x-access-token"

    def __post_init__(self) -> None:
        if (self.token_env is None) == (self.token_file is None):
            raise Invalid(
                "a git credential names neither a variable nor a file, or both", hint="give token_env or token_file"
            )


@dataclass(frozen=True, slots=True)
class Holder:
    """Who asks for a work item.

    Attributes:
        worker: The name of the worker, for people.
        run_id: The run, an id of ours. Whoever asks again under the same one gets its own claim again.
        host: What identifies the machine since it started (`Clock.boot`).
    """

    worker: str
    run_id: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class SessionAges:
    """How old sessions may get.

    Attributes:
        default_ms: How long after its last use a session may be resumed, in milliseconds; `None`: for ever.
        by_agent: The same for agents by name; goes before the default.
    """

    default_ms: int | None = None
    by_agent: Mapping[str, int | None] = field(default_factory=dict)

    def limit_s(self, agent: str | None) -> float | None:
        """Return how long after its last use a session of an agent may be resumed, in seconds; `None`: for ever."""
        limit_ms = self.by_agent.get(agent, self.default_ms) if agent is not None else self.default_ms
        return None if limit_ms is None else limit_ms / 1000


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """What the registry knows about the conversation of a work item. Times are seconds since the Unix epoch.

    Attributes:
        work_key: `WorkItem.key`.
        session_id: The conversation's id, chosen by us before the agent first starts.
        epoch: How often the work item was claimed; the latest claim has this number.
        worker: Who claimed it last.
        store: The URL of the store its transcript is in.
        cwd: The working directory of the latest run, once it is known.
        created_at: When the work item was first claimed.
        last_used_at: When a run was last known to use the session.
        agent: The agent's name, if it has one.
        run_id: The run that claimed it last.
        host: The machine of that run.
        held_until: When the latest claim ends, or ended, unless it is renewed; `None`: it was released.
        tainted: What of the transcript is missing and could not be healed; `None`: nothing.
    """

    work_key: str
    session_id: str
    epoch: int
    worker: str
    store: str
    cwd: str | None
    created_at: float
    last_used_at: float
    agent: str | None = None
    run_id: str = ""
    host: str = ""
    held_until: float | None = None
    tainted: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write a work item's session. It lasts until its time is up, and as long as it is renewed.

    Attributes:
        work: The work item.
        session_id: Its conversation.
        epoch: The fencing token, from 1.
        is_new: Whether this claim made the session.
        store: The URL of the store its transcript is in.
        run_id: The run that holds it.
        token: Random; tells apart two attempts to claim.
        until: When it ends unless it is renewed, for people; seconds since the Unix epoch.
        ttl_s: How long it lasts. Count from before you asked for it, and by your own clock (`Clock.elapsed`).
        previous: What was known before this claim; `None` if there was no session, or it was too old.
        took_over: Whether the claim before this one had not been released: its worker crashed, or was evicted.
        stale: The session that was dropped at this claim because of its age.
        tainted: What of the transcript is missing and could not be healed; `None`: nothing.
    """

    work: WorkItem
    session_id: str
    epoch: int
    is_new: bool
    store: str = ""
    run_id: str = ""
    token: str = ""
    until: float = 0.0
    ttl_s: float = 0.0
    previous: SessionRecord | None = None
    took_over: bool = False
    stale: SessionRecord | None = None
    tainted: str | None = None
