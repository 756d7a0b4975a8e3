"""Values that tests share."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from claude_agent_sdk.testing import run_session_store_conformance

from everturn.settings import Settings
from everturn.transcripts.store import TranscriptStore


@dataclass(frozen=True)
class StorePlace:
    """A place for a store, and the settings that reach it."""

    url: str
    settings: Settings


async def assert_conforms(place: StorePlace) -> None:
    """Run the SDK's own conformance suite on stores in one place, a scope for each that it asks for."""
    scopes = count()
    opened: list[TranscriptStore] = []

    def fresh() -> TranscriptStore:
        opened.append(TranscriptStore.open(place.url, scope=f"scope-{next(scopes)}", settings=place.settings))
        return opened[-1]

    await run_session_store_conformance(fresh)
    for store in opened:
        await store.aclose()
