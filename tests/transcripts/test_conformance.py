"""The SDK's own conformance suite, on every kind of store, under both event loops."""

from __future__ import annotations

from itertools import count

import anyio
import pytest
from claude_agent_sdk.testing import run_session_store_conformance

from everturn.transcripts import TranscriptStore
from support import StorePlace


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_store_passes_the_sdks_conformance_suite(place: StorePlace, backend: str) -> None:
    scopes = count()
    opened: list[TranscriptStore] = []

    def fresh() -> TranscriptStore:
        opened.append(TranscriptStore.open(place.url, scope=f"scope-{next(scopes)}", settings=place.settings))
        return opened[-1]

    async def main() -> None:
        await run_session_store_conformance(fresh)
        for store in opened:
            await store.aclose()

    anyio.run(main, backend=backend)
