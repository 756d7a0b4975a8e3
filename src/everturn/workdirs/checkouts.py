"""One checkout per work item, at a path that stays the same, so that a resumed agent finds its files."""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout

from everturn.errors import Conflict, Invalid, Unavailable
from everturn.model import WorkItem, repository_name
from everturn.telemetry import get_logger
from everturn.workdirs.git import Git

SLUG_LENGTH = 40


class Workdirs:
    """The checkouts below one folder.

    Args:
        root: The folder. It must be on a file system with working locks.
        git: Runs git.
        lock_timeout_s: How long to wait for another process that is opening the same checkout.
    """

    def __init__(self, root: Path, git: Git, *, lock_timeout_s: float) -> None:
        self._root = root
        self._git = git
        self._lock_timeout_s = lock_timeout_s
        self._log = get_logger()

    def path(self, work: WorkItem) -> Path:
        """Return where a work item's checkout is, or will be."""
        repository = repository_name(work.repo or "")
        words = (work.agent, repository.rsplit("/", 1)[-1], work.issue or work.task_id)
        readable = "-".join(str(word) for word in words if word).lower()
        slug = re.sub(r"[^a-z0-9]+", "-", readable).strip("-")[:SLUG_LENGTH].strip("-")
        whole = f"{work.key}\n{repository}"  # a task may move to another repository
        return self._root / f"{slug}-{hashlib.sha256(whole.encode()).hexdigest()[:12]}"

    def check(self, work: WorkItem, stop: threading.Event | None = None) -> None:
        """Make sure that the repository can be reached, if it is still to be cloned. Makes nothing.

        Args:
            work: The work item.
            stop: Once it is set, git is killed within a moment. The same for `open`.

        Raises:
            NotFound: There is no such repository.
            Denied: It wants credentials that git does not have.
            Unavailable: git failed, or took too long.
        """
        if not self.path(work).exists():
            self._git.run(["ls-remote", "--quiet", "--end-of-options", _source(work), "HEAD"], Path("/"), stop)

    def open(self, work: WorkItem, stop: threading.Event | None = None) -> Path:
        """Return a checkout of the work item's repository. Blocks; call it in a thread.

        What an earlier run left in it is kept. A clone that was killed half-way is begun again.

        Raises:
            Invalid: The work item has no repository.
            NotFound: There is no such repository. Nothing was made.
            Conflict: Something else lies at the checkout's path.
            Unavailable: git failed, or another process holds the checkout.
        """
        path, source = self.path(work), _source(work)
        self._root.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._root / f".{path.name}.lock", timeout=self._lock_timeout_s):
                if not path.exists():
                    self._clone(source, path, stop)
        except Timeout:
            raise Unavailable(
                f"another process has been opening {path} for {self._lock_timeout_s:g} s",
                hint="wait for it, or look what it is doing",
            ) from None
        if not (path / ".git").exists():
            raise Conflict(f"{path} is not a checkout", hint="move it away")
        return path

    def _clone(self, source: str, path: Path, stop: threading.Event | None) -> None:
        # A folder of its own for each try: the git of one that was killed may still be writing into its.
        for leftover in self._root.glob(f".{path.name}.unfinished-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished = Path(mkdtemp(prefix=f".{path.name}.unfinished-", dir=self._root))
        try:
            # No hard links: an agent that damages its objects must not damage the repository they came from.
            self._git.run(
                ["clone", "--quiet", "--no-hardlinks", "--end-of-options", source, str(unfinished)], self._root, stop
            )
            unfinished.rename(path)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        self._log.info("cloned", path=str(path))


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


def _source(work: WorkItem) -> str:
    if not work.repo:
        raise Invalid(f"{work.key} has no repository", hint="name one, or run in a directory of your own")
    return work.repo
