"""`Workdirs`: a place to work in for each agent and branch, at a path that stays the same, ready in a second."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from everturn.errors import EverturnError, Held, Invalid
from everturn.git.locks import Lock
from everturn.git.runner import Git
from everturn.model import RepositoryOptions, WorkItem
from everturn.telemetry import Metrics, get_logger
from everturn.workdirs.cache import Cache, Tip
from everturn.workdirs.names import Target, cache_name, check_repository, workdir_name
from everturn.workdirs.records import WorkdirRecord
from everturn.workdirs.rescuer import DAMAGED, Rescuer
from everturn.workdirs.root import Root
from everturn.workdirs.trees import Trees

LEAST_WAIT_S = 2.0  # a run that has just ended may be about to let go


class Workdir(os.PathLike[str]):
    """A place to work in. It is this run's alone until it is closed, or the process dies.

    Attributes:
        path: The working directory.
        name: Its name, below which it is known to `everturn workdirs`.
        outcome: `new`; `reused`: another conversation had it; or `kept`: it is as this conversation left it.
        warnings: What somebody should know about it.
    """

    def __init__(self, path: Path, name: str, outcome: str, warnings: list[str], close: Callable[[], None]) -> None:
        self.path = path
        self.name = name
        self.outcome = outcome
        self.warnings = warnings
        self._close = close

    def __fspath__(self) -> str:
        return str(self.path)

    def close(self) -> None:
        """Let go of it. What is in it stays. A second time does nothing."""
        close, self._close = self._close, _nothing
        close()


@dataclass(frozen=True, slots=True)
class _Order:
    """What is asked for, and what is known of it."""

    work: WorkItem
    repo: str
    branch: str | None
    target: Target
    name: str
    options: RepositoryOptions
    cache: Cache
    keep: bool
    run_id: str
    lock: Lock
    stop: threading.Event | None
    warnings: list[str] = field(default_factory=list)


class Workdirs:
    """The workdirs below one folder. They may be opened from many threads and processes at once.

    Args:
        root: The folder.
        git: Runs git.
        options: Returns how a repository is to be checked out.
        rescuer: Looks after what is unsaved.
        metrics: What is counted.
        wait_s: How long to wait for a workdir that a run is at work in.
        lock_timeout_s: How long to wait for others that are at work on a cache.
        used: Called with the name of a workdir that was let go of.
    """

    def __init__(
        self,
        root: Root,
        git: Git,
        *,
        options: Callable[[str], RepositoryOptions],
        rescuer: Rescuer,
        metrics: Metrics,
        wait_s: float = 0,
        lock_timeout_s: float = 600,
        used: Callable[[str], None] | None = None,
    ) -> None:
        self._root = root
        self._git = git
        self._options = options
        self._rescuer = rescuer
        self._metrics = metrics
        self._wait_s = max(wait_s, LEAST_WAIT_S)
        self._lock_timeout_s = lock_timeout_s
        self._used = used or _ignore
        self._trees = Trees(root, git)
        self._log = get_logger()

    def path(self, work: WorkItem, branch: str | None = None) -> Path:
        """Return where a work item's workdir is, or will be."""
        return self._root.trees / workdir_name(work, branch)

    def check(self, work: WorkItem, branch: str | None = None, stop: threading.Event | None = None) -> None:
        """Make sure that what is asked for can be had, as far as that can be told without making anything.

        Args:
            work: The work item.
            branch: See `open`.
            stop: Once it is set, git is killed within a moment. The same for `open`.

        Raises:
            Invalid: The repository or the branch has a name that cannot be used.
            NotFound: There is no such repository.
            Denied: It wants credentials that git does not have.
            Unavailable: git failed, or took too long.
        """
        repo, target = _source(work), Target.parse(branch)
        if not self.path(work, branch).exists():
            self._cache(repo).ask(target, stop)

    def open(
        self,
        work: WorkItem,
        branch: str | None = None,
        *,
        keep: bool = True,
        run_id: str = "",
        vacate: Callable[[str], object] | None = None,
        stop: threading.Event | None = None,
    ) -> Workdir:
        """Return a place to work in. Blocks; call it in a thread.

        Args:
            work: The work item. Its repository is cached; the first time that takes as long as a clone.
            branch: What to work on: a branch, a ref such as `refs/pull/7/head`, or a commit. A branch that the remote
                does not have begins at its default branch. `None`: the default branch, in a workdir of the work
                item's own; else there is one for each agent and branch.
            keep: Whether the work item goes on where it was: then everything is as it left it, and the remote is not
                even asked. If it has begun anew, or another one had the workdir, the workdir is brought up to date,
                and what is unsaved in it is rescued first.
            run_id: The run.
            vacate: Called with the run that was in it last, to end what may be left of its agent.
            stop: Once it is set, git is killed within a moment.

        Raises:
            Invalid: The work item has no repository, or one that cannot be used, or there is no such branch.
            NotFound: There is no such repository, ref or commit. Nothing was made.
            Held: Another run is at work in it.
            Conflict: The folder of the workdirs is somebody else's.
            Denied: The remote wants credentials that git does not have, or the folder cannot be written to.
            Unavailable: git failed, or others were at work on the same repository for too long.
        """
        begun = self._root.clock.elapsed()
        repo, target, name = _source(work), Target.parse(branch), workdir_name(work, branch)
        self._root.prepare()
        lock = self._lock(name, stop)
        try:
            options = self._options(repo)
            cache = self._cache(repo)
            order = _Order(work, repo, branch, target, name, options, cache, keep, run_id, lock, stop)
            outcome = self._open(order, vacate or _ignore)
        except BaseException as error:
            lock.release()
            if isinstance(error, OSError):
                raise self._root.denied(error) from error
            raise
        seconds = self._root.clock.elapsed() - begun
        self._metrics.workdir_opens.labels(outcome).inc()
        self._metrics.workdir_open_seconds.observe(seconds)
        self._log.info("workdir_opened", workdir=name, outcome=outcome, seconds=round(seconds, 3))
        return Workdir(self._root.trees / name, name, outcome, order.warnings, lambda: self._let_go(order))

    def _open(self, order: _Order, vacate: Callable[[str], object]) -> str:
        record = WorkdirRecord.read(self._root, order.name)
        if record is None and order.branch is None:
            record = self._new_record(order)  # the name itself says whose it is
        if record is not None and record.run_id:
            vacate(record.run_id)
        tree = self._root.trees / order.name
        is_there = os.path.lexists(tree)
        if is_there and record is not None and not record.is_settled:
            self._root.discard(tree)  # it was being made ready, and nobody has worked in it since
            is_there = False
        if is_there and order.keep and record is not None and record.work_key == order.work.key:
            if self._is_well(order, record):
                self._note(order, record, is_settled=True, lfs=record.lfs)
                return "kept"
            order.warnings.append(self._rescuer.set_aside(record, [DAMAGED]))
            is_there = False
        tip = order.cache.prepare(order.target, order.stop)
        if is_there and tip.is_new_branch and self._trees.has_tracked(tree, order.target.name):
            order.warnings.append(
                f"the remote has no branch {order.branch} any more: it begins at the default branch"
            )
        if is_there:
            self._make_way(order, record or self._new_record(order))
        same_files = not order.options.submodules and (record is None or record.lfs == order.options.lfs)
        self._note(order, record, is_settled=False)
        outcome = self._show_somehow(order, reuse=same_files and os.path.lexists(tree), tip=tip)
        self._note(order, record, is_settled=True)
        return outcome

    def _show_somehow(self, order: _Order, *, reuse: bool, tip: Tip) -> str:
        """Have the workdir show a commit, and return how. What stands in the way of that is mended or made anew."""
        try:
            self._show(order, reuse=reuse, tip=tip)
        except EverturnError:
            if order.stop is not None and order.stop.is_set():
                raise
            if order.cache.mend(order.stop):
                tip = order.cache.prepare(order.target, order.stop)
            elif not reuse:
                raise
            self._show(order, reuse=False, tip=tip)  # there may be folders in it that nobody can write to
            return "new"
        return "reused" if reuse else "new"

    def _show(self, order: _Order, *, reuse: bool, tip: Tip) -> None:
        tree = self._root.trees / order.name
        if reuse:
            self._trees.reuse(tree, order.cache, tip, order.options, order.lock, order.stop)
        else:
            self._root.discard(tree)
            self._trees.build(tree, order.cache, tip, order.options, order.stop)

    def _is_well(self, order: _Order, record: WorkdirRecord) -> bool:
        """Heal what can be healed without touching what is in it, and tell whether that was enough."""
        self._trees.heal(record.tree(self._root))
        if order.cache.looks_whole() and self._rescuer.is_whole(record, order.stop):
            return True
        if order.cache.settle(order.stop) and self._rescuer.is_whole(record, order.stop):
            return True
        order.cache.restore(order.stop)
        return self._rescuer.is_whole(record, order.stop)

    def _make_way(self, order: _Order, record: WorkdirRecord) -> None:
        try:
            done = self._rescuer.make_way(record, order.stop)
        except EverturnError:
            if (order.stop is not None and order.stop.is_set()) or not order.cache.mend(order.stop):
                raise
            done = self._rescuer.make_way(record, order.stop)
        if done is not None:
            order.warnings.append(done)

    def _new_record(self, order: _Order) -> WorkdirRecord:
        return WorkdirRecord(
            order.name,
            order.repo,
            created_at=self._root.clock.now(),
            work_key=order.work.key,
            cache=order.cache.name,
        )

    def _note(
        self, order: _Order, record: WorkdirRecord | None, *, is_settled: bool, lfs: bool | None = None
    ) -> None:
        changed = (record or self._new_record(order)).but(
            repo=order.repo,
            last_used_at=self._root.clock.now(),
            work_key=order.work.key,
            agent=order.work.agent,
            branch=order.branch,
            cache=order.cache.name,
            run_id=order.run_id,
            is_settled=is_settled,
            lfs=order.options.lfs if lfs is None else lfs,
        )
        changed.write(self._root)

    def _let_go(self, order: _Order) -> None:
        record = WorkdirRecord.read(self._root, order.name)
        try:
            if record is not None:
                record.but(last_used_at=self._root.clock.now()).write(self._root)
        finally:
            order.lock.release()
        self._used(order.name)

    def _lock(self, name: str, stop: threading.Event | None) -> Lock:
        lock = self._root.try_workdir(name, self._wait_s, stop)
        if lock is not None:
            return lock
        record = WorkdirRecord.read(self._root, name)
        whose = "" if record is None else f" for {record.work_key}"
        raise Held(
            f"a run is at work{whose} in {self._root.trees / name}",
            hint="wait for it, or work on another branch; claim_wait_s says how long a run waits by itself",
            holder="" if record is None else record.work_key,
            run_id="" if record is None else record.run_id,
            epoch=0,
            until=self._root.clock.now(),
        )

    def _cache(self, repo: str) -> Cache:
        options = self._options(repo)
        return Cache(
            self._root,
            self._git,
            cache_name(repo, options),
            repo,
            options,
            lock_timeout_s=self._lock_timeout_s,
            metrics=self._metrics,
        )


def _source(work: WorkItem) -> str:
    if not work.repo:
        raise Invalid(f"{work.key} has no repository", hint="name one, or run in a directory of your own")
    check_repository(work.repo)
    return work.repo


def _nothing() -> None:
    pass


def _ignore(*_: str) -> None:
    pass
