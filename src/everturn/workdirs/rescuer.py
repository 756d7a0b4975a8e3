"""What becomes of unsaved work where a workdir has to show something else, or has to go."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from everturn.errors import EverturnError
from everturn.git.runner import INCONCLUSIVE, Git
from everturn.git.shadow import Shadow
from everturn.telemetry import Metrics, get_logger
from everturn.workdirs.cache import tidy_noted
from everturn.workdirs.inspection import Unsaved, inspect
from everturn.workdirs.looking import REMOTES
from everturn.workdirs.records import CacheRecord, WorkdirRecord
from everturn.workdirs.rescue import keep_pushed, push_rescue, quarantine
from everturn.workdirs.root import Root

DAMAGED = "its repository cannot be read any more"


class Rescuer:
    """Looks what is unsaved, and keeps it. Whoever calls it holds the workdir's lock.

    Args:
        root: The folder of the workdirs.
        git: Runs git.
        how: Whether unsaved work is pushed to the remote, or put into quarantine here. What cannot be pushed is put
            into quarantine in any case.
        metrics: Where rescues are counted.
        lock_timeout_s: How long to wait for others that are at work on a cache.
    """

    def __init__(
        self,
        root: Root,
        git: Git,
        *,
        how: Literal["quarantine", "push"],
        metrics: Metrics,
        lock_timeout_s: float = 600,
    ) -> None:
        self._root = root
        self._git = git
        self._how = how
        self._metrics = metrics
        self._lock_timeout_s = lock_timeout_s
        self._log = get_logger()

    def is_whole(self, record: WorkdirRecord, stop: threading.Event | None = None) -> bool:
        """Tell whether git can read what a workdir is on, and what it last had from its remote.

        Raises:
            EverturnError: It could not be told, as git was stopped, say.
        """
        with shadow_of(self._root, self._git, record) as shadow:
            if shadow.damage is not None:
                return False
            known = {tip for name, tip in shadow.refs.named.items() if name.startswith(f"{REMOTES}origin/")}
            wanted = [*sorted(known), *([f"{shadow.refs.head}^{{tree}}"] if shadow.refs.head else [])]
            try:
                said = shadow.run(["cat-file", "--batch-check"], stop, "".join(f"{each}\n" for each in wanted))
            except INCONCLUSIVE:
                raise
            except EverturnError:
                return False
        return not any(line.endswith(" missing") for line in said.splitlines())

    def look(self, record: WorkdirRecord, stop: threading.Event | None = None) -> Unsaved:
        """Look what is unsaved in a workdir. Changes nothing.

        Raises:
            Unavailable: It was stopped. All other trouble is in the answer.
        """
        with shadow_of(self._root, self._git, record) as shadow:
            return inspect(shadow, self._cache(record), stop)

    def make_way(self, record: WorkdirRecord, stop: threading.Event | None = None) -> str | None:
        """Keep what is unsaved in a workdir. If that takes moving it away, it is not there any more on return.

        Commits that were pushed once are copied into the cache, so that they outlive the branch they were pushed to.

        Returns:
            What was done, for people; `None`: there was nothing unsaved.

        Raises:
            Unavailable: It could not be kept. The workdir is as it was.
        """
        with shadow_of(self._root, self._git, record) as shadow:
            unsaved = inspect(shadow, self._cache(record), stop)
            if unsaved.pushed_only:
                self._keep_pushed(shadow, record, unsaved, stop)
            if not unsaved:
                return None
            pushed = self._push(shadow, record, unsaved, stop) if self._how == "push" else None
        if pushed is not None:
            return pushed
        return self.set_aside(record, unsaved.reasons())

    def set_aside(self, record: WorkdirRecord, reasons: list[str]) -> str:
        """Put a workdir into quarantine, and return what was done, for people.

        Raises:
            Unavailable: It could not be moved; it is where it was.
        """
        folder = quarantine(self._root.quarantine, record.tree(self._root), record.facts(), reasons, self._stamp())
        self._metrics.rescues.labels("quarantine").inc()
        self._log.warning("workdir_quarantined", workdir=record.name, place=str(folder))
        return f"what was unsaved in the workdir ({'; '.join(reasons)}) is in {folder}"

    def _keep_pushed(
        self, shadow: Shadow, record: WorkdirRecord, unsaved: Unsaved, stop: threading.Event | None
    ) -> None:
        with self._root.locked_cache(record.cache, self._lock_timeout_s, stop) as lock:
            tidy_noted(self._root, record.cache)
            keep_pushed(self._git, shadow, self._cache(record), record.name, unsaved.pushed_only, stop, lock=lock)

    def _push(
        self, shadow: Shadow, record: WorkdirRecord, unsaved: Unsaved, stop: threading.Event | None
    ) -> str | None:
        """Push it; `None` if it cannot be."""
        try:
            refs = push_rescue(shadow, record.repo, record.name, self._stamp(), unsaved, stop)
        except EverturnError as error:
            if stop is not None and stop.is_set():
                raise  # nothing is wrong with the remote
            self._log.warning("rescue_not_pushed", workdir=record.name, error=str(error))
            return None
        self._metrics.rescues.labels("push").inc()
        self._log.info("rescue_pushed", workdir=record.name, refs=len(refs))
        return f"what was unsaved in the workdir ({'; '.join(unsaved.reasons())}) was pushed to {', '.join(refs[:3])}"

    def _cache(self, record: WorkdirRecord) -> Path:
        return CacheRecord(record.cache).repository(self._root)

    def _stamp(self) -> str:
        return datetime.fromtimestamp(self._root.clock.now(), UTC).strftime("%Y%m%dT%H%M%SZ")


@contextmanager
def shadow_of(root: Root, git: Git, record: WorkdirRecord) -> Iterator[Shadow]:
    """Give a shadow of a workdir whose lock is held, to look at it.

    Args:
        root: Where the workdir is.
        git: Runs git.
        record: The workdir.
    """
    repository = CacheRecord(record.cache).repository(root)
    with (
        root.unfinished() as folder,
        Shadow.of(git, record.tree(root), repository / "objects", folder) as shadow,
    ):
        yield shadow
