"""Summaries of sessions: derived, written when a session pauses, rebuilt from the log when in doubt.

They keep listing cheap (docs/format.md, section 9). A summary that cannot be written is logged and let go: it is not
worth a failed append, and whoever lists next reads the log instead.
"""

from __future__ import annotations

import atexit
import json
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from everturn.clock import Clock
from everturn.errors import Corrupt, Unavailable
from everturn.log.background import start_thread
from everturn.log.objects import Objects, Stored, run
from everturn.log.reader import Log, log_exists, read
from everturn.telemetry import carrying_run
from everturn.transcripts.layout import Layout

if TYPE_CHECKING:
    from claude_agent_sdk import SessionKey, SessionStoreEntry, SessionSummaryEntry

SessionName = tuple[str, str]  # project key, session id


@dataclass
class _State:
    """What is known of one session: the fold of its main log up to a number, or that it must be read."""

    summary: SessionSummaryEntry | None
    upto: int
    known: bool
    dirty: bool = False
    touched: float = 0.0  # when it was last written to
    failed: bool = False  # could not be written, or was put off: the thread leaves it to whoever flushes next


class SummaryKeeper:
    """Folds what one process appends, and writes the folds when a session has been quiet for a while.

    Args:
        objects: The store; it must block, as a thread of ours calls it.
        layout: The scope's layout.
        clock: Tells how long a session has been quiet.
        pause_s: How long that has to be.
        on_failure: Called with the session id and the error when a summary could not be written.
    """

    def __init__(
        self,
        objects: Objects,
        layout: Layout,
        *,
        clock: Clock,
        pause_s: float,
        on_failure: Callable[[str, Exception], None],
    ) -> None:
        self._objects = objects
        self._layout = layout
        self._clock = clock
        self._pause_s = pause_s
        self._on_failure = on_failure
        self._states: dict[SessionName, _State] = {}
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._at_exit = carrying_run(self._flush_at_exit)  # kept: what is taken back has to be what was given

    def begin(self, name: SessionName, tail: int) -> None:
        """Take note that a session's main log is empty up to this number."""
        with self._changed:
            self._states[name] = _State(None, tail, known=True)

    def note(self, name: SessionName, seq: int, entries: Sequence[Any]) -> None:
        """Fold what was just written to a session's main log as part `seq`."""
        with self._changed:
            state = self._states.setdefault(name, _State(None, 0, known=True))
            follows = state.known and state.upto == seq - 1  # otherwise somebody else has written in between
            state.summary = fold(name, state.summary, entries) if follows else None
            state.known = state.summary is not None
            state.upto = seq
            state.dirty, state.failed = True, False
            state.touched = self._clock.elapsed()
            self._watch()

    def forget(self, name: SessionName) -> None:
        """Drop what is known of a session, because it is deleted."""
        with self._writing, self._changed:
            self._states.pop(name, None)

    async def flush(self, *, strict: bool = False, quiet_s: float = 0.0) -> None:
        """Write the summaries that are behind. Failures are reported, and tried again with the next flush.

        When the store does not answer for one of them, the others are put off, too: it would take as long for each.

        Args:
            strict: Raise what went wrong, too: what is read next would be older than what we have written. But a
                transcript that is damaged keeps nobody from the others.
            quiet_s: Only those of sessions that have been quiet for so long.
        """
        failed: Exception | None = None
        with self._writing:
            behind = deque(self._behind(quiet_s))
            while behind:
                name, state = behind.popleft()
                try:
                    await self._write(name, state)
                except Exception as error:  # noqa: BLE001  # whatever it is, there are other sessions
                    self._on_failure(name[1], error)
                    failed = failed or (None if isinstance(error, Corrupt) else error)
                    self._put_off(state)
                    if isinstance(error, Unavailable):
                        self._put_off(*(other for _, other in behind))
                        break
        if strict and failed is not None:
            raise failed

    async def close(self) -> None:
        """Write what is behind and end the thread."""
        await self.flush()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _behind(self, quiet_s: float) -> list[tuple[SessionName, _State]]:
        with self._changed:
            until = self._clock.elapsed() - quiet_s
            dirty = [(name, state) for name, state in self._states.items() if state.dirty and state.touched <= until]
            for _, state in dirty:
                state.dirty = False
            return dirty

    def _put_off(self, *states: _State) -> None:
        with self._changed:
            for state in states:
                state.dirty = state.failed = True

    async def _write(self, name: SessionName, state: _State) -> None:
        with self._changed:
            known, summary, upto = state.known, state.summary, state.upto
        if not known:
            log = await read(self._objects, self._layout.log(*name, None))
            summary, upto = fold_log(name, log), log.tail
            with self._changed:
                if state.upto == upto:
                    state.known, state.summary = True, summary
        if summary is None:
            return
        await self._objects.put(self._layout.summary(*name), encode_summary(summary, upto))
        # Somebody may have deleted the session in the meantime, summary and all: then this one must not stay.
        if not await log_exists(self._objects, self._layout.log(*name, None)):
            await self._objects.delete([self._layout.summary(*name)])

    def _watch(self) -> None:
        if self._thread is None and not self._closing:
            atexit.register(self._at_exit)
            self._thread = start_thread(self._write_after_pauses, "everturn-summaries")

    def _write_after_pauses(self) -> None:
        while True:
            with self._changed:
                waiting = [state.touched for state in self._states.values() if state.dirty and not state.failed]
                if self._closing or not waiting:
                    self._thread = None
                    atexit.unregister(self._at_exit)
                    return
                left_s = min(waiting) + self._pause_s - self._clock.elapsed()
                if left_s > 0:
                    self._changed.wait(left_s)
                    continue
            run(self.flush(quiet_s=self._pause_s))

    def _flush_at_exit(self) -> None:
        run(self.flush())


def fold_log(name: SessionName, log: Log) -> SessionSummaryEntry | None:
    """Fold a whole main log, or return `None` if it does not exist."""
    return fold(name, None, log.entries()) if log.exists else None


def encode_summary(summary: SessionSummaryEntry, upto: int) -> bytes:
    """Return a summary as it is stored."""
    record = {"v": 1, "session_id": summary["session_id"], "upto": upto, "data": summary["data"]}
    return json.dumps(record, separators=(",", ":")).encode()


def decode_summary(stored: Stored) -> SessionSummaryEntry | None:
    """Return a stored summary, or `None` if it is damaged: it is derived, so it can be made anew."""
    try:
        record = json.loads(stored.data)
        if not isinstance(record["data"], dict):
            return None
        return {"session_id": str(record["session_id"]), "mtime": stored.modified_ms, "data": record["data"]}
    except (ValueError, KeyError, TypeError):
        return None


def fold(
    name: SessionName, summary: SessionSummaryEntry | None, entries: Sequence[Any]
) -> SessionSummaryEntry | None:
    """Fold entries, or return `None` if the SDK's fold cannot digest one: no append may fail for it."""
    from claude_agent_sdk import fold_session_summary  # noqa: PLC0415  # who only looks does not wait for it

    key: SessionKey = {"project_key": name[0], "session_id": name[1]}
    rows = [entry for entry in entries if isinstance(entry, dict)]
    try:
        return fold_session_summary(summary, key, cast("list[SessionStoreEntry]", rows))
    except Exception:  # noqa: BLE001  # whatever it is, the entries are durable, and the summary is only derived
        return None
