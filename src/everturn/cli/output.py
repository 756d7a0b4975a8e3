"""How commands speak: text for people, JSON for programs, one line for errors."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import typer
from rich.console import Console

from everturn.errors import Invalid
from everturn.log.entries import as_json

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_LOST = 3
EXIT_UNSTORED = 4
EXIT_HELD = 75  # "try again later", as sendmail's sysexits.h has it
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

_UNSAFE = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))
_TURNS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))  # they turn the text around that comes after them
_CONTROLS = {code: None for code in (*range(32), *range(127, 160), *_TURNS) if chr(code) not in "\n\t"}


def complain(message: str, hint: str, kind: str = "error") -> None:
    """Print one line to standard error."""
    line = plain(f"{kind}: {message} ({hint})".replace("\n", " "))
    sys.stderr.write(line + "\n")


def first_line(error: Exception) -> str:
    """Return what an error that is not ours says first; its kind if it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def refuse_memory(url: str) -> None:
    """Refuse a store that would end with this process.

    Raises:
        Invalid: It is `memory://`.
    """
    if url.startswith("memory:"):
        raise Invalid(
            "memory:// keeps nothing when the command ends", hint="use s3://bucket/prefix or file:///folder"
        )


def json_line(value: Any) -> str:
    """Return a value as one line of JSON; what JSON does not know is shown as text."""
    return json.dumps(value, default=str, separators=(",", ":"))


class OutputError(Exception):
    """Standard output took no more. Not an `OSError`: the command line library would answer that one by itself."""


@contextmanager
def printing() -> Iterator[None]:
    """Print in here; whatever keeps the output from being written is raised as `OutputError`."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        raise OutputError(str(error)) from error


def print_json(value: dict[str, Any]) -> None:
    """Print a record on a line of its own, however deep it is, in characters that no terminal obeys."""
    with printing():
        sys.stdout.write(_UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", as_json(value)) + "\n")


class Terminal(Console):
    """Standard output for people."""

    def print(self, *objects: Any, **options: Any) -> None:
        """See the library. What cannot be written is raised as `OutputError`."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            raise OutputError(str(error)) from error

    def on_broken_pipe(self) -> None:
        """Tell the caller, who has an agent to let go of; the library would exit on the spot."""
        raise OutputError("whoever read the output has gone") from BrokenPipeError()


def plain(text: str) -> str:
    """Return text without what would make a terminal do something, or show it in another order than it has."""
    return text.translate(_CONTROLS)


def fold(text: str, length: int) -> str:
    """Return text as one line of at most this length."""
    line = plain(" ".join(text.split()))
    return line if len(line) <= length else line[: length - 1] + "…"


def when(milliseconds: int) -> str:
    """Return a time as people read it, in UTC.

    Args:
        milliseconds: Since the Unix epoch.
    """
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def size(count: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def age(seconds: float) -> str:
    """Return a duration as people read it, in its largest unit: `26 h`, `3 d`."""
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def counted(count: int, one: str, many: str) -> str:
    """Return a number with its noun."""
    return f"{count:,} {one if count == 1 else many}"


def short_ids(session_ids: Sequence[str]) -> dict[str, str]:
    """Return the beginnings of ids that are enough to name them, eight characters at least."""
    length = 8
    while len({session_id[:length] for session_id in session_ids}) < len(set(session_ids)):
        length += 4
    return {session_id: session_id[:length] for session_id in session_ids}


def consent(question: str, *, yes: bool, quiet: bool) -> None:
    """Ask before something is gone for good.

    Raises:
        Invalid: The answer is no, or nobody can be asked.
    """
    if yes:
        return
    if quiet or not sys.stdin.isatty():
        raise Invalid(
            "nobody was asked, so nothing was done", hint="add --yes if that is what you want, or --dry-run"
        )
    if not typer.confirm(question):
        raise Invalid("nothing was done", hint="--dry-run shows what would be done")
