"""This machine's mirror of all journals: how it is kept up to date in the background, and how it is asked."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from everturn.clock import Clock
from everturn.conversations.runs import LocalJournals
from everturn.databases import snapshot
from everturn.errors import EverturnError, NotFound, Unavailable
from everturn.journal.reading import Journals, RunRef
from everturn.mirrors.keeping import Progress, catch_up, follow
from everturn.mirrors.sqlite import SqliteMirror, folder_of
from everturn.opening import open_journals
from everturn.settings import Settings
from everturn.telemetry import Metrics, get_logger

WHOLE_PAUSE_S = 60.0  # between two looks at everything that the store has
LARGEST_SHARE = 0.05  # of the time, at most, is spent on those
FOLLOWED_S = 30.0  # so long a run is followed after it has let go of its claim: its last words may be on their way

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class MirrorState:
    """How the mirror is.

    Attributes:
        building: How far building it has come, for people; `None`: it is there.
        problem: Why it could not be kept up to date; `None`: it could.
        failing_since: Since when that is so.
        damaged: Journals that cannot be read whole, a sentence for each.
    """

    building: str | None = None
    problem: str | None = None
    failing_since: float | None = None
    damaged: tuple[str, ...] = ()


class Upkeep:
    """Keeps the mirror up to date, and asks it.

    Args:
        settings: They name the store and the folder of its mirrors.
        clock: Tells the time.
        metrics: What is counted.
    """

    def __init__(self, settings: Settings, clock: Clock, metrics: Metrics) -> None:
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._mirror = SqliteMirror(folder_of(settings), settings.store_url(), metrics=metrics)
        self._mutex = threading.Lock()
        self._opened: Journals | None = None
        self._state = MirrorState()
        self._whole_at: float | None = None
        self._seen_at: dict[RunRef, float] = {}
        self._log = get_logger()

    @property
    def state(self) -> MirrorState:
        """How the mirror is."""
        return self._state

    def journals(self) -> Journals:
        """Return the journals of the store. Blocks for one request, the first time.

        Raises:
            EverturnError: As `open_journals`.
        """
        with self._mutex:
            if self._opened is None:
                self._opened = open_journals(self._settings)
            return self._opened

    def local(self) -> LocalJournals:
        """Return the journals of runs that are on this machine now."""
        return LocalJournals(self._settings.runs_path(), self._settings.store_url())

    def keep_up(self, live: Collection[RunRef] = ()) -> None:
        """Take in what is new: of these runs each time, of all others now and then. What goes wrong is in `state`.

        Args:
            live: Runs that may be at work. Those on this machine tell the mirror themselves.
        """
        try:
            journals = self.journals()
            local = set(self.local().runs())
            if self._is_whole_due() or self._mirror.unusable() is not None:
                self._catch_up(journals, local)
            else:
                refs = [ref for ref in self._followed(live) if ref not in local]
                follow(journals, self._mirror, self._mirror.checkpoints_of(refs), metrics=self._metrics)
            self._note()
        except NotFound:  # nobody has ever run anything
            self._note()
        except EverturnError as error:
            self._fail(error.message)
        except Exception as error:
            self._fail(f"it failed ({type(error).__name__})")
            raise

    def _followed(self, live: Collection[RunRef]) -> list[RunRef]:
        now = self._clock.elapsed()
        self._seen_at |= dict.fromkeys(live, now)
        self._seen_at = {ref: at for ref, at in self._seen_at.items() if now - at <= FOLLOWED_S}
        return list(self._seen_at)

    def _catch_up(self, journals: Journals, local: set[RunRef]) -> None:
        begun = self._clock.elapsed()
        done = catch_up(journals, self._mirror, told=self._tell, is_live=local.__contains__, metrics=self._metrics)
        ended = self._clock.elapsed()
        self._whole_at = ended + max(WHOLE_PAUSE_S, (ended - begun) / LARGEST_SHARE)
        if done.damaged and done.damaged != self._state.damaged:
            self._log.warning("journals_damaged", count=len(done.damaged), first=done.damaged[0])
        self._state = replace(self._state, damaged=done.damaged)

    def _is_whole_due(self) -> bool:
        return self._whole_at is None or self._clock.elapsed() >= self._whole_at

    def _tell(self, progress: Progress) -> None:
        if progress.reason is not None:
            told = f"the mirror is being built: {progress.runs:,} of {progress.runs_to_do:,} runs"
            self._state = replace(self._state, building=told)

    def _fail(self, why: str) -> None:
        since = self._state.failing_since or self._clock.now()
        self._state = replace(self._state, building=None, problem=why, failing_since=since)

    def _note(self) -> None:
        self._state = MirrorState(damaged=self._state.damaged)

    def look(self, question: Callable[[sqlite3.Connection], Answer]) -> Answer | None:
        """Return the answer to a question, or `None` if there is no mirror yet.

        Raises:
            EverturnError: As `SqliteMirror.reading`.
        """
        with suppress(NotFound), self._mirror.reading() as connection, snapshot(connection):
            return question(connection)
        return None

    def ask(self, question: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Return the answer to a question.

        Raises:
            Unavailable: The mirror is being built.
            EverturnError: As `SqliteMirror.reading`.
        """
        found = self.look(question)
        if found is None:
            raise Unavailable(
                self._state.building or "the mirror of the journals is not built yet", hint="try again in a moment"
            )
        return found

    def close(self) -> None:
        """Close the mirror."""
        self._mirror.close()
