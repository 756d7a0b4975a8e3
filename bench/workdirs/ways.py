"""The ways in which an agent can get a place to work in: Everturn's, and what else people do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry

from bench.workdirs.repository import ENVIRONMENT, ONE_SERVICE, Origin, run
from everturn.clock import Ids, SystemClock
from everturn.git.runner import Git
from everturn.model import RepositoryOptions, WorkItem
from everturn.telemetry import Metrics
from everturn.workdirs import Workdir, Workdirs
from everturn.workdirs.rescuer import Rescuer
from everturn.workdirs.root import Root

TIMEOUT_S = 600.0


class Way(Protocol):
    """One of them."""

    folder: Path

    def open(self, number: int) -> Path:
        """Make the place of an agent, and return it."""


class Clones:
    """`git clone`, as a script does it that is started for each task.

    Args:
        origin: The repository.
        folder: Where to.
        options: What `git clone` is told; `local`: it may make hard links to the remote's files.
    """

    def __init__(self, origin: Origin, folder: Path, *options: str, local: bool = False) -> None:
        self.folder = folder
        self._source = str(origin.path) if local else origin.url
        self._options = options
        folder.mkdir()

    def open(self, number: int) -> Path:
        """See `Way`."""
        path = self.folder / f"agent-{number}"
        run(["clone", "--quiet", *self._options, self._source, str(path)], self.folder)
        return path


class LinkedWorktrees:
    """`git worktree add` from one bare repository, which the first one clones.

    Args:
        origin: The repository.
        folder: Where to.
    """

    def __init__(self, origin: Origin, folder: Path) -> None:
        self.folder = folder
        self._origin = origin
        self._cache = folder / "cache.git"
        folder.mkdir()

    def open(self, number: int) -> Path:
        """See `Way`."""
        if not self._cache.exists():
            run(["clone", "--quiet", "--bare", self._origin.url, str(self._cache)], self.folder)
            run(["config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"], self._cache)
            run(["fetch", "--quiet"], self._cache)
        path = self.folder / f"agent-{number}"
        add = ["worktree", "add", "--quiet", "--no-track", "-b", f"agent-{number}", str(path), "origin/main"]
        run(["-c", "checkout.workers=0", *add], self._cache)
        return path


class Ours:
    """`Workdirs.open`, as a run calls it.

    Args:
        origin: The repository.
        folder: Where to.
        sparse: What to check out; nothing: everything.
    """

    def __init__(self, origin: Origin, folder: Path, *sparse: str) -> None:
        self.folder = folder
        self.root = Root(folder, SystemClock(), Ids())
        self.git = Git(ENVIRONMENT, TIMEOUT_S)
        self._origin = origin
        options = RepositoryOptions(sparse=sparse)
        self.metrics = Metrics(CollectorRegistry())
        self.rescuer = Rescuer(self.root, self.git, how="quarantine", metrics=self.metrics)
        given = {"rescuer": self.rescuer, "metrics": self.metrics}
        self.workdirs = Workdirs(self.root, self.git, options=lambda _: options, **given)

    def open(self, number: int) -> Path:
        """See `Way`."""
        workdir = self.hold(number)
        workdir.close()
        return workdir.path

    def hold(self, number: int, issue: int = 1, *, keep: bool = False) -> Workdir:
        """Open the workdir of an agent and do not let go of it: it is `main`, for one issue or another."""
        return self.workdirs.open(self._item(number, issue), "main", keep=keep)

    def path(self, number: int) -> Path:
        """Return where the workdir of an agent is."""
        return self.workdirs.path(self._item(number), "main")

    def _item(self, number: int, issue: int = 1) -> WorkItem:
        return WorkItem(f"agent-{number}", self._origin.url, issue)


WAYS: dict[str, Callable[[Origin, Path], Way]] = {
    "clones": Clones,
    "linked": LinkedWorktrees,
    "workdirs": Ours,
    "sparse": lambda origin, folder: Ours(origin, folder, ONE_SERVICE),
    "local": lambda origin, folder: Clones(origin, folder, local=True),
    "parallel": lambda origin, folder: Clones(origin, folder, "--config", "checkout.workers=0"),
    "shallow": lambda origin, folder: Clones(origin, folder, "--depth=1"),
}
