"""The trace of a run: what happened in it, one JSON line each, kept on this machine, put into the store at its end.

A trace is for looking at, not for going on from: what the agent has to find again is in the transcript. So nothing
that goes wrong with a trace ends a run.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import os
import threading
import zlib
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from claude_agent_sdk import Message
from claude_agent_sdk.types import StreamEvent

from everturn.clock import Clock, Ids, SystemClock
from everturn.errors import Conflict, Denied, EverturnError, Unavailable
from everturn.journal.file import whole_lines
from everturn.log.objects import Objects
from everturn.log.patience import Patience
from everturn.telemetry import Metrics, default_metrics, get_logger
from everturn.transcripts.layout import Layout

LIMIT_BYTES = 128 << 20  # before compression
CHUNK_BYTES = 1 << 20
DEADLINE_S = 60.0


class Trace:
    """A run's trace, written and flushed line by line. Never raises: one that cannot be written just ends.

    Args:
        path: The file; it is made, for nobody else to read, with the first line.
        clock: Tells when things happen.
    """

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self.path = path
        self._clock = clock or SystemClock()
        self._log = get_logger()
        self._lock = threading.Lock()
        self._file: int | None = None
        self._size_bytes = 0
        self._stopped = False

    def note(self, kind: str, **fields: Any) -> None:
        """Write a line of what happened.

        Args:
            kind: Its `type`.
            fields: What there is to say; JSON values, dataclasses and paths as what they are, anything else as text.
        """
        head = {"at": self._now(), "type": kind}
        try:
            data = _encoded(head | fields | head)
        except Exception:  # noqa: BLE001  # not a number, too deep, …: that it happened is worth a line
            data = _encoded({**head, "left_out": True})
        with self._lock:
            self._write(data + b"\n")

    def message(self, message: Message) -> None:
        """Write a line with a message of the SDK, but for the pieces of a message that is still to come."""
        if not isinstance(message, StreamEvent):
            fields = {each.name: getattr(message, each.name) for each in dataclasses.fields(message)}
            self.note(type(message).__name__, **fields)

    def close(self) -> None:
        """Let go of the file. Nothing more is written."""
        with self._lock:
            self._stopped = True
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock.now(), UTC).isoformat(timespec="milliseconds")

    def _write(self, line: bytes) -> None:
        if self._stopped:
            return
        self._size_bytes += len(line)
        if self._size_bytes > LIMIT_BYTES:
            self._stop(f"it would be longer than {LIMIT_BYTES >> 20} MiB")
            return
        try:
            if self._file is None:
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            while line:
                line = line[os.write(self._file, line) :]
        except OSError as error:
            self._stop(error.strerror or str(error))

    def _stop(self, why: str) -> None:
        self._stopped = True
        self._log.warning("trace_stopped", path=str(self.path), error=why)


async def upload(  # noqa: PLR0913  # what tests set, too
    objects: Objects,
    scope: str,
    run_id: str,
    path: Path,
    *,
    late: bool = False,
    timeout_s: float = DEADLINE_S,
    clock: Clock | None = None,
    ids: Ids | None = None,
    metrics: Metrics | None = None,
) -> bool:
    """Put a trace into the store, compressed, if it is not there yet. On return it is durable.

    A coroutine for `everturn.log.objects.run`, in a thread. It is safe to call again, from another process too. A
    last line that is cut off is left out. What is compressed is held in memory; the trace is read piece by piece.

    Args:
        objects: The store. If it is encrypted by us, so is the trace.
        scope: The scope of the run.
        run_id: The run.
        path: The trace; nobody writes it any more.
        late: Whether an earlier upload of it may have failed; for the count.
        timeout_s: How long to go on trying.
        clock: For tests.
        ids: For jitter.
        metrics: Where uploads are counted.

    Returns:
        Whether there was a trace to upload.

    Raises:
        Conflict: The store has another trace of this run.
        Denied: The file cannot be read, or the credentials are refused.
        Unavailable: The store did not answer in time.
    """
    counted = (metrics or default_metrics()).trace_uploads
    patience = Patience(objects, clock or SystemClock(), ids or Ids(), timeout_s)
    key = Layout(scope).trace(run_id)
    try:
        data = _compressed(path)
        if data is not None:
            await patience.insist(lambda: _create(objects, key, data))
    except EverturnError:
        counted.labels("failed").inc()
        raise
    if data is None:
        return False
    counted.labels("late" if late else "done").inc()
    return True


async def _create(objects: Objects, key: str, data: bytes) -> None:
    if await objects.create(key, data):
        return
    stored = await objects.get(key)
    if stored is None:
        raise Unavailable(f"the store is busy with {key}", hint="it is safe to try again")
    # Not the compressed bytes: another release of the compressor may have made them.
    if stored.data != data and _content(stored.data) != _content(data):
        raise Conflict(f"{key} is another trace", hint="look at both; the local one is left where it is")


def _compressed(path: Path) -> bytes | None:
    """Return a trace as it is stored, the same whenever it is asked for, or `None` if there is none."""
    try:
        with path.open("rb") as file:
            left = whole_lines(file)
            if not left:
                return None
            buffer = io.BytesIO()
            with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as packed:
                while left and (piece := file.read(min(CHUNK_BYTES, left))):
                    packed.write(piece)
                    left -= len(piece)
            return buffer.getvalue()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Denied(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from None


def _content(data: bytes) -> bytes:
    """Return a digest of what was compressed."""
    found = sha256()
    try:
        with gzip.open(io.BytesIO(data)) as file:
            while piece := file.read(CHUNK_BYTES):
                found.update(piece)
    except (OSError, EOFError, zlib.error):
        return b""
    return found.digest()


def _encoded(line: Any) -> bytes:
    return json.dumps(_plain(line), allow_nan=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
