"""What goes into the columns that hold JSON. It is bounded, and every text can be stored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from everturn.errors import Corrupt, Invalid

DETAILS = 100
DETAIL_CHARS = 500
NAME_CHARS = 1000
FACTS_CHARS = 64 << 10


def as_details(details: Sequence[str]) -> str:
    """Return sentences for people as JSON: not too many, and not too long."""
    kept = [shortened(each, DETAIL_CHARS) for each in details[:DETAILS]]
    if len(details) > DETAILS:
        kept[-1] = f"… and {len(details) - DETAILS + 1:,} more"
    return as_json(kept)


def as_facts(facts: Mapping[str, Any]) -> str:
    """Return facts as JSON.

    Raises:
        Invalid: They are too large.
    """
    text = as_json(dict(facts))
    if len(text) > FACTS_CHARS:
        raise Invalid(f"the logbook takes {FACTS_CHARS:,} characters of facts, not {len(text):,}", hint="send fewer")
    return text


def as_json(value: object) -> str:
    """Return JSON that people can read, and SQLite can store."""
    text = json.dumps(value, ensure_ascii=False)
    return text if _is_unicode(text) else json.dumps(value)


def from_json(text: str) -> Any:
    """Return what JSON says.

    Raises:
        Corrupt: It is none: somebody has changed it.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise Corrupt(f"the logbook says {text[:100]!r}, which is no JSON", hint="mend that row") from error


def shortened(text: str, limit: int = NAME_CHARS) -> str:
    """Return a text that is not longer than a limit, and that can be stored."""
    text = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return text if _is_unicode(text) else text.encode("utf-8", "backslashreplace").decode()


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
