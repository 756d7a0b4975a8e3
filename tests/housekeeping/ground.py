"""A root with real workdirs, borrowing from real caches, for what looks after them."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry

from everturn.clock import Ids, ManualClock
from everturn.forges.base import Happening
from everturn.git.runner import Git
from everturn.housekeeping.disk import Measurer, Space
from everturn.housekeeping.eviction import Evictor
from everturn.housekeeping.freeing import Freeing
from everturn.housekeeping.removal import Removal, processes_in
from everturn.housekeeping.sweeping import WorkdirSweeper
from everturn.model import Holder, RepositoryOptions, SessionAges, WorkItem
from everturn.registry import Registry, SqliteRegistry
from everturn.settings import inherited_environment
from everturn.telemetry import Metrics
from everturn.testing import make_repository
from everturn.workdirs import Workdirs
from everturn.workdirs.records import CacheRecord, WorkdirRecord
from everturn.workdirs.rescuer import Rescuer
from everturn.workdirs.root import Root

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
FILES = {"a.txt": "a\n", "lib/b.txt": "b\n", ".gitignore": "build/\n*.log\n"}
SESSION_AGE_S = DAY_S
ROOMY = Space(10**12, 10**12)


def make_remote(folder: Path) -> Path:
    """Make a repository without a working tree, and return it."""
    start, bare = make_repository(folder / "begin", FILES, "One"), folder / "remote.git"
    Git(inherited_environment(), timeout_s=30).run(["clone", "--quiet", "--bare", str(start), str(bare)], folder)
    shutil.rmtree(bare / "hooks")
    return bare


@dataclass
class Ground:
    """A root, and all that looks after it.

    Attributes:
        folder: Where everything is; the root is `root` in it.
        origin: What remotes begin as.
        free: Tells how much of the disk is free.
    """

    folder: Path
    origin: Path
    free: Callable[[Path], Space] = lambda _: ROOMY
    clock: ManualClock = field(default_factory=lambda: ManualClock(time.time()))
    metrics: Metrics = field(default_factory=lambda: Metrics(CollectorRegistry()))

    def __post_init__(self) -> None:
        self.git = Git(inherited_environment(), timeout_s=30)
        self.root = Root(self.folder / "root", self.clock, Ids())
        self.registry: Registry = SqliteRegistry(
            self.folder / "registry.db", clock=self.clock, ages=SessionAges(int(SESSION_AGE_S * 1000))
        )
        self.measurer = Measurer(self.root, self.git, self.metrics)
        self.workdirs = Workdirs(
            self.root,
            self.git,
            options=lambda _: RepositoryOptions(),
            rescuer=self.rescuer("quarantine"),
            metrics=self.metrics,
        )

    # --- What is there --------------------------------------------------------------------------------------------

    def remote(self, name: str = "shop") -> Path:
        """Return a repository that takes pushes, and is there from the first time on."""
        bare = self.folder / f"{name}.git"
        if not bare.exists():
            shutil.copytree(self.origin, bare)
        return bare

    def work(self, agent: str = "fixer", repository: str = "shop") -> WorkItem:
        return WorkItem.task(f"{agent}-{repository}", agent=agent, repo=str(self.remote(repository)))

    def open(self, agent: str = "fixer", repository: str = "shop", *, days_ago: float = 0.0) -> WorkdirRecord:
        """Have a workdir that was last used a while ago."""
        workdir = self.workdirs.open(self.work(agent, repository))
        workdir.close()
        return self.age(workdir.name, days_ago)

    def age(self, name: str, days_ago: float) -> WorkdirRecord:
        """Have a workdir, and its cache, look as if they were last used a while ago."""
        record = self.record(name).but(last_used_at=self.clock.now() - days_ago * DAY_S)
        record.write(self.root)
        cache = CacheRecord.read(self.root, record.cache)
        assert cache is not None
        cache.but(last_used_at=record.last_used_at).write(self.root)
        return record

    def record(self, name: str) -> WorkdirRecord:
        record = WorkdirRecord.read(self.root, name)
        assert record is not None
        return record

    def all(self) -> list[WorkdirRecord]:
        return list(WorkdirRecord.all(self.root))

    def tree(self, workdir: WorkdirRecord) -> Path:
        return workdir.tree(self.root)

    def agent(self, workdir: WorkdirRecord, *arguments: str) -> str:
        """Run git in a workdir as its agent does."""
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        done = subprocess.run(
            ["git", *identity, *arguments],
            cwd=self.tree(workdir),
            env=inherited_environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def build(self, workdir: WorkdirRecord, kilobytes: int = 100) -> None:
        """Have the agent build something that git ignores."""
        folder = self.tree(workdir) / "build"
        folder.mkdir(exist_ok=True)
        (folder / "out.bin").write_bytes(b"x" * 1024 * kilobytes)

    def names(self, folder: str) -> list[str]:
        """Return what is in one of the root's folders."""
        return sorted(path.name for path in (self.root.path / folder).iterdir())

    # --- What looks after it --------------------------------------------------------------------------------------

    def rescuer(self, how: str) -> Rescuer:
        return Rescuer(self.root, self.git, how=how, metrics=self.metrics)  # type: ignore[arg-type]

    def removal(
        self, rescue: str = "quarantine", find: Callable[[Iterable[Path]], dict[int, str]] = processes_in
    ) -> Removal:
        return Removal(self.root, self.git, rescuer=self.rescuer(rescue), metrics=self.metrics, find_processes=find)

    def evictor(self, *, quota_bytes: int | None = None, free_bytes: int = 0) -> Evictor:
        return Evictor(
            self.root,
            self.removal(),
            self.measurer,
            quota_bytes=quota_bytes,
            free_bytes=free_bytes,
            space=self.free,
        )

    def sweeper(
        self,
        *,
        quota_bytes: int | None = None,
        free_bytes: int = 0,
        interval_s: float = DAY_S,
        max_age_days: float = 7,
    ) -> WorkdirSweeper:
        return WorkdirSweeper(
            self.root,
            self.git,
            self.registry,
            removal=self.removal(),
            evictor=self.evictor(quota_bytes=quota_bytes, free_bytes=free_bytes),
            measurer=self.measurer,
            max_age_s=max_age_days * DAY_S,
            interval_s=interval_s,
            metrics=self.metrics,
        )

    def session(self, work: WorkItem, cwd: Path) -> str:
        """Have a session whose run has ended in a directory, and return its id."""
        claim = self.registry.claim(work, Holder("w"), ttl_s=60)
        self.registry.confirm(claim, str(cwd))
        self.registry.release(claim)
        return claim.session_id

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def issue(ground: Ground, number: int = 7, *, agent: str = "fixer", repository: str = "shop") -> WorkItem:
    """Return the work item of an issue."""
    return WorkItem(agent, str(ground.remote(repository)), number)


def issue_closed(ground: Ground, number: int = 7, *, repository: str = "shop") -> Happening:
    """Return what a forge tells when an issue is closed."""
    return Happening("issue_closed", (str(ground.remote(repository)),), str(number))


def freeing(ground: Ground, rescue: str = "quarantine") -> Freeing:
    """Return what frees workdirs and sessions."""
    return Freeing(ground.root, ground.removal(rescue), ground.registry, clock=ground.clock)


def as_json(facts: object) -> object:
    """Return what somebody reads who is given these facts as JSON."""
    return json.loads(json.dumps(facts))
