"""Local transcripts: files of one JSON object a line, as the agent command keeps them and as they are exported."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from everturn.errors import Corrupt, Denied, Invalid, NotFound
from everturn.log.entries import decode_lines
from everturn.transcripts.marks import Place

BATCH_BYTES = 1_000_000
ENDING_BYTES = 64  # of what was read before, to know a file again


def read_transcript(path: Path, *, torn_end: bool = False) -> list[dict[str, Any]]:
    """Read a local transcript whole. Integers beyond 64 bits and unpaired surrogates are kept.

    Args:
        path: The file.
        torn_end: Leave out a last line that is cut off, as a killed agent leaves one behind.

    Raises:
        NotFound: There is no such file.
        Denied: It may not be read.
        Invalid: It is not a transcript: it is empty or a link, or a line is not a JSON object. Names the line.
    """
    data = _bytes_of(path)
    entries = []
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if number < len(lines):
            entries.append(_numbered(path, number, line))
            continue
        try:
            entries.append(parse_entry(line))
        except ValueError:
            if torn_end:
                break
            raise Invalid(
                f"the last line of {path} is cut off",
                hint="if an agent is still writing it, wait for it; otherwise delete that line from a copy",
            ) from None
    if not entries:
        raise Invalid(f"there is nothing in {path}", hint="name a transcript that has entries")
    return entries


def read_on(path: Path, place: Place, *, finished: bool) -> tuple[list[dict[str, Any]], Place] | None:
    """Read what has been added to a local transcript behind a place.

    Args:
        path: The file. One that is not there has nothing.
        place: How far it has been read.
        finished: Nobody writes it any more: a last line without its end counts, unless it is cut off.

    Returns:
        The entries, and the new place; or `None` if it is not the file that was read so far.

    Raises:
        Denied: It may not be read.
        Invalid: A line is not an entry. Names it.
    """
    found = _bytes_behind(path, place)
    if found is None:
        return None
    cut = found.rfind(b"\n") + 1
    entries: list[dict[str, Any]] = []
    lines = found[:cut].split(b"\n")[:-1]
    for number, line in enumerate(lines, place.lines + 1):
        if line.strip():
            entries.append(_numbered(path, number, line))
    if finished and found[cut:].strip():
        with suppress(ValueError):
            entries.append(parse_entry(found[cut:]))
            cut = len(found)
    ending = (place.ending + found[:cut])[-ENDING_BYTES:]
    return entries, Place(place.offset + cut, place.lines + len(lines), ending)


def batches(entries: Sequence[Any], limit_bytes: int = BATCH_BYTES) -> Iterator[list[Any]]:
    """Split entries into batches that fit in a part of about this size. A larger entry has one of its own."""
    batch: list[Any] = []
    filled_bytes = 0
    for entry in entries:
        size_bytes = _size_bytes(entry)
        if batch and filled_bytes + size_bytes > limit_bytes:
            yield batch
            batch, filled_bytes = [], 0
        batch.append(entry)
        filled_bytes += size_bytes
    if batch:
        yield batch


def _bytes_of(path: Path) -> bytes:
    try:
        return _bytes_from(path, 0)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}", hint="check its name") from None


def _bytes_behind(path: Path, place: Place) -> bytes | None:
    """Return what a file has behind a place, or `None` if what should stand before the place does not."""
    try:
        found = _bytes_from(path, place.offset - len(place.ending))
    except FileNotFoundError:
        found = b""
    return found[len(place.ending) :] if found.startswith(place.ending) else None


def _bytes_from(path: Path, offset: int) -> bytes:
    try:
        if path.is_symlink():
            raise Invalid(f"{path} is a symbolic link", hint="name the file itself")
        with path.open("rb") as file:
            file.seek(offset)
            return file.read()
    except FileNotFoundError:
        raise
    except PermissionError:
        raise Denied(f"{path} may not be read", hint="check its permissions, and who you are") from None
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}", hint="name a file") from None


def _numbered(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        return parse_entry(line)
    except ValueError as error:
        raise Invalid(
            f"line {number} of {path} is not an entry: {error}", hint="mend or delete it in a copy"
        ) from None


def parse_entry(line: bytes) -> dict[str, Any]:
    """Parse a line. Integers beyond 64 bits (up to 4300 digits), unpaired surrogates and any depth are kept.

    Raises:
        ValueError: It is not a JSON object. Says why.
    """
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except RecursionError:
        try:
            (value,) = decode_lines(line + b"\n", exact=True)
        except Corrupt as error:
            raise ValueError(error.message) from None
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004  # one kind for whatever is no entry
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _size_bytes(entry: Any) -> int:
    try:
        return len(json.dumps(entry))
    except RecursionError:
        return BATCH_BYTES  # nested too deeply to be measured: it has a part of its own
