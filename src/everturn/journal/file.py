"""The local file of a journal: whole lines, or none (docs/journal.md)."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from everturn.errors import Denied, Unavailable

CHUNK_BYTES = 1 << 20


class JournalFile:
    """A journal's file while its run writes it. For one thread at a time.

    Args:
        path: The file. It must not be there yet; it is made for nobody else to read.

    Attributes:
        path: The file.
        size_bytes: How much of it is whole lines.

    Raises:
        Denied: It cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Denied(
                f"the journal {path} cannot be made: {error.strerror}", hint="check the setting state, and its disk"
            ) from None

    def append(self, lines: bytes) -> None:
        """Append whole lines. On return they survive the process.

        Raises:
            Unavailable: The disk is full, say. None of them is in it; nothing may be appended any more.
        """
        try:
            written = os.write(self._file, lines)
            if written == len(lines):
                self.size_bytes += written
            else:
                self._append_rest(lines, written)
        except OSError as error:
            raise self._failed(error) from None

    def sync(self) -> None:
        """Return when all that was appended survives the machine's power.

        Raises:
            Unavailable: The disk does not say so.
        """
        try:
            getattr(os, "fdatasync", os.fsync)(self._file)  # macOS has none
        except OSError as error:
            raise self._failed(error) from None

    def reader(self) -> int:
        """Return another descriptor of the file, which leads there whatever becomes of its name; to be closed.

        Raises:
            Denied: The process has too many files open.
        """
        try:
            return os.dup(self._file)
        except OSError as error:
            raise Denied(f"the journal {self.path} cannot be read: {error.strerror}", hint="see ulimit -n") from None

    def close(self) -> None:
        """Let go of the file. What is appended from now on is refused: its number may be another file's by then."""
        descriptor, self._file = self._file, -1
        os.close(descriptor)

    def _append_rest(self, lines: bytes, written: int) -> None:
        rest = memoryview(lines)
        try:
            while written < len(lines):
                written += os.write(self._file, rest[written:])
        except OSError:
            with suppress(OSError):  # then whoever looks after what we leave cuts it off
                os.ftruncate(self._file, self.size_bytes)
            raise
        self.size_bytes += len(lines)

    def _failed(self, error: OSError) -> Unavailable:
        return Unavailable(
            f"the journal {self.path} cannot be written: {error.strerror}",
            hint="make room on its disk, then run it again: the conversation is stored",
        )


def lines_at(descriptor: int, start: int, size_bytes: int) -> bytes:
    """Return the whole lines of a file from a place on, so many bytes of them at most; one line if that is longer."""
    found = bytearray()
    while piece := os.pread(descriptor, size_bytes, start + len(found)):
        end = (piece.find(b"\n") if found else piece.rfind(b"\n")) + 1
        if end:
            return bytes(found + piece[:end])
        found += piece
    return b""


@dataclass(frozen=True, slots=True)
class Cut:
    """What was cut off a journal that nobody writes any more.

    Attributes:
        size_bytes: What is left: whole lines.
        torn_bytes: What stood behind them.
    """

    size_bytes: int
    torn_bytes: int


def cut(path: Path) -> Cut:
    """Cut off a last line that has no end. Every whole line stays.

    Raises:
        Denied: The file cannot be read or written.
    """
    try:
        with path.open("r+b") as file:
            size_bytes = file.seek(0, os.SEEK_END)
            whole_bytes = whole_lines(file)
            if whole_bytes < size_bytes:
                file.truncate(whole_bytes)
            return Cut(whole_bytes, size_bytes - whole_bytes)
    except OSError as error:
        raise Denied(f"{path} cannot be mended: {error.strerror}", hint="check its permissions") from None


def whole_lines(file: BinaryIO) -> int:
    """Return how many bytes there are up to the end of the last whole line, and go to the file's start."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - CHUNK_BYTES)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n") + 1
        if found:
            file.seek(0)
            return start + found
        end = start
    file.seek(0)
    return 0
