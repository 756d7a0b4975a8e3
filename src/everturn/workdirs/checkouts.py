"""One checkout per work item, at a path that stays the same, so that a resumed agent finds its files."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

from filelock import FileLock, Timeout

from everturn.errors import Conflict, Invalid, Unavailable
from everturn.model import WorkItem
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
        words = (
            work.agent,
            (work.repo or "").rstrip("/").rsplit("/", 1)[-1].removesuffix(".git"),
            work.issue or work.task_id,
        )
        readable = "-".join(str(word) for word in words if word).lower()
        slug = re.sub(r"[^a-z0-9]+", "-", readable).strip("-")[:SLUG_LENGTH].strip("-")
        return self._root / f"{slug}-{hashlib.sha256(work.key.encode()).hexdigest()[:12]}"

    def check(self, work: WorkItem) -> None:
        """Make sure that the repository can be reached, if it is still to be cloned. Makes nothing.

        Raises:
            NotFound: There is no such repository.
            Denied: It wants credentials that git does not have.
            Unavailable: git failed, or took too long.
        """
        if not self.path(work).exists():
            self._git.run(["ls-remote", "--quiet", "--end-of-options", _source(work), "HEAD"], Path("/"))

    def open(self, work: WorkItem) -> Path:
        """Return a checkout of the work item's repository. Blocks; call it in a thread.

        What an earlier run left in it is kept. A clone that was killed half-way is begun again.

        Raises:
            Invalid: The work item has no repository.
            NotFound: There is no such repository. Nothing was made.
            Conflict: Something else lies at the checkout's path, or a checkout of another repository.
            Unavailable: git failed, or another process holds the checkout.
        """
        path, source = self.path(work), _source(work)
        self._root.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._root / f".{path.name}.lock", timeout=self._lock_timeout_s):
                if not path.exists():
                    self._clone(source, path)
        except Timeout:
            raise Unavailable(
                f"another process has been opening {path} for {self._lock_timeout_s:g} s",
                hint="wait for it, or look what it is doing",
            ) from None
        if not (path / ".git").exists():
            raise Conflict(f"{path} is not a checkout", hint="move it away")
        origin = self._git.run(["config", "--get", "remote.origin.url"], path).strip()
        if origin != source:
            raise Conflict(
                f"{path} is a checkout of {origin}, not of {source}", hint="move it away, or use its repository"
            )
        return path

    def _clone(self, source: str, path: Path) -> None:
        # A folder of its own for each try: the git of one that was killed may still be writing into its.
        for leftover in self._root.glob(f".{path.name}.unfinished-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished = Path(mkdtemp(prefix=f".{path.name}.unfinished-", dir=self._root))
        try:
            # No hard links: an agent that damages its objects must not damage the repository they came from.
            self._git.run(
                ["clone", "--quiet", "--no-hardlinks", "--end-of-options", source, str(unfinished)], self._root
            )
            unfinished.rename(path)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        self._log.info("cloned", path=str(path))


def located(work: WorkItem) -> WorkItem:
    """Return a work item whose repository, if it is a local path, is an absolute one: the same from everywhere."""
    if work.repo and _is_local(work.repo):
        return replace(work, repo=str(Path(work.repo).resolve()))
    return work


def _source(work: WorkItem) -> str:
    if not work.repo:
        raise Invalid(f"{work.key} has no repository", hint="name one, or run in a directory of your own")
    return work.repo


def _is_local(repo: str) -> bool:
    try:
        return Path(repo).exists()
    except (OSError, ValueError):  # too long for a path, say
        return False
