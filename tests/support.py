"""Values that tests share."""

from __future__ import annotations

from dataclasses import dataclass

from everturn.settings import Settings


@dataclass(frozen=True)
class StorePlace:
    """A place for a store, and the settings that reach it."""

    url: str
    settings: Settings
