"""Transcripts that the agent command is known to choke on when it resumes them."""

from __future__ import annotations

from collections.abc import Iterable

from everturn.log.reader import Log

LARGE_ENTRY_BYTES = 10_000_000
LARGE_TRANSCRIPT_BYTES = 50_000_000


def size_warnings(log: Log) -> list[str]:
    """Return a sentence for each thing in a log that is too large. Looks at lines only if there can be one.

    Raises:
        Corrupt: A part is not as its header says. Names the object.
    """
    total_bytes = sum(part.header.size for part in log.parts)
    return too_large(total_bytes, log.line_sizes())


def too_large(total_bytes: int, entry_sizes: Iterable[int]) -> list[str]:
    """Return a sentence for each thing that is too large.

    Args:
        total_bytes: How large the transcript is.
        entry_sizes: How large its entries are, in order; not looked at if none can be too large.
    """
    if total_bytes <= LARGE_ENTRY_BYTES:
        return []
    messages = []
    if total_bytes > LARGE_TRANSCRIPT_BYTES:
        messages.append(f"the transcript has {_megabytes(total_bytes)}; the agent command may fail to resume it")
    for number, size_bytes in enumerate(entry_sizes, 1):
        if size_bytes > LARGE_ENTRY_BYTES:
            messages.append(f"entry {number} has {_megabytes(size_bytes)}; the agent command may fail to resume it")
    return messages


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1_000_000:.1f} MB"
