"""`Workdirs`: a place to work in for each agent and branch, at a path that stays the same, ready in a second."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from everturn.errors import Denied, EverturnError, Held, Invalid
from everturn.git.locks import Lock
from everturn.git.runner import INCONCLUSIVE, Git
from everturn.model import RepositoryOptions, WorkItem
from everturn.telemetry import Metrics, get_logger
from everturn.workdirs.cache import Cache, Tip
from everturn.workdirs.names import Target, cache_name, check_repository, workdir_name
from everturn.workdirs.records import CacheRecord, WorkdirRecord
from everturn.workdirs.rescuer import DAMAGED, Rescuer
from everturn.workdirs.root import Root
from everturn.workdirs.trees import Trees

LEAST_WAIT_S = 2.0  # a run that has just ended may be about to let go
UNNAMED = "-"  # in place of a run's id, where somebody opens a workdir without one


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
        """Let go of it. What is in it stays. A second time does nothing.

        Raises:
            Denied: It cannot be noted when that was. It is let go of all the same.
        """
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

    @property
    def is_stopped(self) -> bool:
        return self.stop is not None and self.stop.is_set()


class Workdirs:
    """The workdirs below one folder. They may be opened from many threads and processes at once.

    Args:
        root: The folder.
        git: Runs git.
        options: Returns how a repository is to be checked out.
        rescuer: Looks after what is unsaved.
        metrics: What is counted.
        wait_s: How long to wait for a workdir that a run is at work in.
        lock_timeout_s: How long to wait for others that are at work on a cache, or look after a workdir.
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
        if not os.path.lexists(self.path(work, branch)):  # nor in a folder that is not ours: `open` says so
            self._cache(repo).ask(target, stop)

    def open(
        self,
        work: WorkItem,
        branch: str | None = None,
        *,
        keep: bool = True,
        run_id: str = "",
        vacate: Callable[[str], object] | None = None,
        overtake: bool = False,
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
            overtake: Whether the caller has the claim on the work item, and has ended the agents of those who had it
                before: a run of the same work item that still has the workdir stands still, and loses it.
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
        lock = self._lock(work, name, run_id or UNNAMED, stop, overtake=overtake)
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
        if order.branch is None and (record is None or not record.work_key):  # the name itself says whose it is
            record = self._new_record(order) if record is None else record.but(work_key=order.work.key)
        if record is not None and record.run_id not in ("", order.run_id):
            vacate(record.run_id)
        tree = self._root.trees / order.name
        is_there = os.path.lexists(tree)
        if is_there and record is not None and not record.is_settled:
            self._root.discard(tree)  # it was being made ready, and nobody has worked in it since
            is_there = False
        if is_there and order.keep and record is not None and record.work_key == order.work.key:
            if self._is_well(order, record):
                self._note(order, record, is_settled=True, cache=record.cache, lfs=record.lfs)
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
        reuse = same_files and os.path.lexists(tree)
        self._note(order, record, is_settled=False)
        reuse = reuse and self._reuse(order, tip)
        if not reuse:
            self._build_or_mend(order, tip)
        self._note(order, record, is_settled=True)
        return "reused" if reuse else "new"

    def _reuse(self, order: _Order, tip: Tip) -> bool:
        """Have the working tree show something else. If that cannot be done, it is good for nothing any more."""
        tree = self._root.trees / order.name
        try:
            self._trees.reuse(tree, order.cache, tip, order.options, order.lock, order.stop)
        except EverturnError:
            if order.is_stopped:
                raise
            return False  # something in it cannot be deleted, say
        return True

    def _build(self, order: _Order, tip: Tip) -> None:
        tree = self._root.trees / order.name
        self._root.discard(tree)
        self._trees.build(tree, order.cache, tip, order.options, order.stop)

    def _build_or_mend(self, order: _Order, tip: Tip) -> None:
        try:
            self._build(order, tip)
        except (Denied, Invalid, *INCONCLUSIVE):
            raise  # the cache is not to blame
        except EverturnError:
            if order.is_stopped or not order.cache.mend(order.stop):
                raise
            self._build(order, order.cache.prepare(order.target, order.stop))

    def _is_well(self, order: _Order, record: WorkdirRecord) -> bool:
        """Heal what can be healed without touching what is in it, and tell whether that was enough."""
        self._trees.heal(record.tree(self._root))
        cache = self._cache(order.repo, self._options_of(order, record))
        if cache.looks_whole(order.stop) and self._rescuer.is_whole(record, order.stop):
            return True
        if cache.settle(order.stop) and self._rescuer.is_whole(record, order.stop):
            return True
        cache.restore(order.stop)
        return self._rescuer.is_whole(record, order.stop)

    def _options_of(self, order: _Order, record: WorkdirRecord) -> RepositoryOptions:
        """Return the options that the workdir was made with, as far as they decide about its cache."""
        known = None if record.cache == order.cache.name else CacheRecord.read(self._root, record.cache)
        if known is None:
            return order.options
        return replace(order.options, blobless=known.blobless, depth=known.depth)

    def _make_way(self, order: _Order, record: WorkdirRecord) -> None:
        try:
            done = self._rescuer.make_way(record, order.stop)
        except INCONCLUSIVE:
            raise
        except EverturnError as error:
            if order.is_stopped:
                raise
            if order.cache.mend(order.stop):
                done = self._rescuer.make_way(record, order.stop)
            else:
                done = self._rescuer.set_aside(record, [f"it cannot be kept in another way: {error.message}"])
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
        self,
        order: _Order,
        record: WorkdirRecord | None,
        *,
        is_settled: bool,
        cache: str | None = None,
        lfs: bool | None = None,
    ) -> None:
        changed = (record or self._new_record(order)).but(
            repo=order.repo,
            last_used_at=self._root.clock.now(),
            work_key=order.work.key,
            agent=order.work.agent,
            branch=order.branch,
            cache=cache or order.cache.name,
            run_id=order.run_id,
            is_settled=is_settled,
            lfs=order.options.lfs if lfs is None else lfs,
        )
        changed.write(self._root)

    def _let_go(self, order: _Order) -> None:
        record = WorkdirRecord.read(self._root, order.name)
        try:
            if record is not None and record.run_id == order.run_id:  # else it was overtaken
                record.but(last_used_at=self._root.clock.now()).write(self._root)
        finally:
            order.lock.release()
        self._used(order.name)

    def _lock(self, work: WorkItem, name: str, run_id: str, stop: threading.Event | None, *, overtake: bool) -> Lock:
        lock = self._root.try_workdir(name, self._wait_s, stop, run_id=run_id)
        deadline = self._root.clock.elapsed() + self._lock_timeout_s
        while lock is None and self._root.run_in(name) == "" and self._root.clock.elapsed() < deadline:
            lock = self._root.try_workdir(name, LEAST_WAIT_S, stop, run_id=run_id)  # it is looked after, for a while
        record = WorkdirRecord.read(self._root, name)
        if lock is None and overtake and record is not None and self._stands_still(record, work):
            self._log.warning("workdir_overtaken", workdir=name)
            self._root.overtake(name)
            lock = self._root.try_workdir(name, self._wait_s, stop, run_id=run_id)
        if lock is not None:
            return lock
        whose = "" if record is None else f" for {record.work_key}"
        raise Held(
            f"a run is at work{whose} in {self._root.trees / name}",
            hint="wait for it, or work on another branch; claim_wait_s says how long a run waits by itself",
            holder="" if record is None else record.work_key,
            run_id="" if record is None else record.run_id,
            epoch=0,
            until=self._root.clock.now(),
        )

    def _stands_still(self, record: WorkdirRecord, work: WorkItem) -> bool:
        """Tell whether a workdir is held by a run of a work item that has been claimed again.

        Such a run does nothing more in it than to note that it has left, whenever it wakes up. One that is still
        opening it would, and so would whoever removes it: those are waited for.
        """
        is_of_work = record.work_key == work.key and record.is_settled and record.run_id != ""
        return is_of_work and self._root.run_in(record.name) == record.run_id

    def _cache(self, repo: str, options: RepositoryOptions | None = None) -> Cache:
        options = options or self._options(repo)
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
