"""What is kept of a recording: its sizes and its shape, not this machine's names and not other people's words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

import orjson

_ID = re.compile(r"\b(msg|toolu)_[0-9A-Za-z_]+")
_ALPHABET = "0123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_SHORT = 24


def sanitise(frames: list[dict[str, Any]], places: dict[str, str], words: str, seed: int) -> list[dict[str, Any]]:
    """Return recorded frames without what is this machine's, and without the agent's own instructions.

    Ids of the scripted model become as long and as random as the API's. The texts of attachments (instructions,
    descriptions of tools) are the agent's vendor's, so text of ours of the same length stands in for them.

    Args:
        frames: As recorded.
        places: Folders and names of this machine, and what to write instead.
        words: Text of ours, to write over attachments with.
        seed: Makes ids.
    """
    random = Random(seed)
    ids: dict[str, str] = {}

    def fresh(match: re.Match[str]) -> str:
        return ids.setdefault(match[0], f"{match[1]}_01{''.join(random.choices(_ALPHABET, k=22))}")

    filling = cycle(words)
    for frame in frames:
        frame["entries"] = [_without_instructions(entry, filling) for entry in frame["entries"]]
    text = orjson.dumps(frames).decode()
    for place, name in sorted(places.items(), key=lambda pair: -len(pair[0])):
        text = text.replace(place, name).replace(re.sub(r"[^A-Za-z0-9]", "-", place), name.replace("/", "-"))
    cleaned: list[dict[str, Any]] = orjson.loads(_ID.sub(fresh, text))
    return cleaned


def our_words(repository: Path) -> str:
    """Return the text of a repository's pages, to write over other text with."""
    return " ".join(page.read_text(encoding="utf-8") for page in sorted(repository.rglob("*.md")))


def _without_instructions(entry: dict[str, Any], filling: Iterator[str]) -> dict[str, Any]:
    if entry.get("type") != "attachment":
        return entry
    return {
        key: _filled(value, filling) if key in ("attachment", "rendered") else value for key, value in entry.items()
    }


def _filled(value: Any, filling: Iterator[str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(member, filling) for key, member in value.items()}
    if isinstance(value, list):
        return [_filled(member, filling) for member in value]
    if isinstance(value, str) and len(value) > _SHORT:
        return "".join(next(filling) for _ in range(len(value)))
    return value
