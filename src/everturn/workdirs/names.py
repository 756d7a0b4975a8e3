"""Names: what may be asked for, and what lies where because of it. Everything here comes from strangers."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from everturn.errors import Invalid
from everturn.model import RepositoryOptions, WorkItem, check_name, repository_name

SLUG_LENGTH = 40
BRANCH_BYTES = 200  # git makes a file of this name and of some longer ones

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SCHEME = re.compile(r"([A-Za-z0-9][A-Za-z0-9+.-]*)(:?)://|([^/]*)::")
_SCHEMES = ("https", "http", "ssh", "git", "file")
_NO_BRANCH = re.compile(r"^[-/.@]$|^-|\.\.|@\{|[\x00-\x20\x7f~^:?*\[\\]|^/|/$|//|\.$|(^|/)\.|\.lock(/|$)")
_HINT = "see git check-ref-format for what a name may hold"


@dataclass(frozen=True, slots=True)
class Target:
    """What a workdir shows.

    Attributes:
        kind: The remote's default branch, a branch, another ref of the remote, or a commit.
        name: The branch without `refs/heads/`, the ref, or the commit; empty for the default branch.
    """

    kind: Literal["default", "branch", "ref", "commit"]
    name: str = ""

    @classmethod
    def parse(cls, text: str | None) -> Target:
        """Understand what was asked for.

        Args:
            text: A branch, a ref that begins with `refs/`, a commit in full, or `None`.

        Raises:
            Invalid: git takes no such name, or the commit is not whole.
        """
        if text is None:
            return cls("default")
        if _COMMIT.fullmatch(text.lower()):
            return cls("commit", text.lower())
        if text.startswith("refs/heads/"):
            return cls("branch", _checked(text.removeprefix("refs/heads/")))
        if text.startswith("refs/"):
            return cls("ref", _checked(text))
        return cls("branch", _checked(text))

    @property
    def ref(self) -> str:
        """The remote's name for it; empty for a commit."""
        names = {"default": "HEAD", "branch": f"refs/heads/{self.name}", "ref": self.name, "commit": ""}
        return names[self.kind]


def _checked(name: str) -> str:
    check_name(name, "branch")
    if _NO_BRANCH.search(name) or name == "HEAD":
        raise Invalid(f"the branch {name!r} has a name that git does not take", hint=_HINT)
    if len(name.encode()) > BRANCH_BYTES:
        raise Invalid(f"the branch {name[:40]!r}… has a name longer than {BRANCH_BYTES} bytes", hint=_HINT)
    return name


def check_repository(repo: str) -> None:
    """Refuse what git would take for an option, or for a program to start.

    Raises:
        Invalid: It begins with `-`, or has a scheme that we do not use.
    """
    if repo.startswith("-"):
        raise Invalid(f"the repository {repo!r} looks like an option", hint="give a URL or a path; ./-x for a path")
    found = _SCHEME.match(repo)
    if found is not None and (found[3] is not None or found[2] or found[1] not in _SCHEMES):
        raise Invalid(
            f"the repository {repo!r} would be fetched by a program of its own choice",
            hint=f"use one of {', '.join(_SCHEMES)}, or a path",
        )


def located(work: WorkItem) -> WorkItem:
    """Return a work item whose repository, if it is a local one, is an absolute path: the same from everywhere."""
    if not work.repo:
        return work
    pieces = urlsplit(work.repo)
    repo = unquote(pieces.path) if pieces.scheme == "file" and not pieces.netloc else work.repo
    try:
        path = Path(repo).expanduser()
        return replace(work, repo=str(path.resolve())) if path.exists() else work
    except (OSError, ValueError, RuntimeError):  # too long for a path, or the home of nobody
        return work


def workdir_name(work: WorkItem, branch: str | None) -> str:
    """Return the name of the workdir of a work item: one for each agent and branch or, if no branch was asked for,
    one for each work item. The same wherever and whenever it is asked for."""
    repository = repository_name(work.repo or "")
    if branch is None:
        readable = (work.agent, _last(repository), work.issue or work.task_id)
        return _name(readable, f"{work.key}\n{repository}")  # a task may move to another repository
    target = Target.parse(branch)
    return _name(
        (work.agent, _last(repository), target.name), f"{repository}\n{work.agent or ''}\n{target.ref or target.name}"
    )


def cache_name(repo: str, options: RepositoryOptions) -> str:
    """Return the name of the cache of a repository. One that is not whole is another one than one that is."""
    repository = repository_name(repo)
    return _name((_last(repository),), f"{repository}\n{options.blobless}\n{options.depth}")


def _name(readable: tuple[object, ...], whole: str) -> str:
    words = "-".join(str(word) for word in readable if word not in (None, "")).lower()
    slug = re.sub(r"[^a-z0-9]+", "-", words).strip("-")[:SLUG_LENGTH].strip("-")
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{slug}-{digest}" if slug else digest


def _last(repository: str) -> str:
    return re.split(r"[/:]", repository)[-1]
