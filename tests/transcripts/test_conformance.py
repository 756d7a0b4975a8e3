"""The SDK's own conformance suite, on every kind of store, under both event loops."""

from __future__ import annotations

import anyio
import pytest

from support import StorePlace, assert_conforms


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_store_passes_the_sdks_conformance_suite(place: StorePlace, backend: str) -> None:
    anyio.run(assert_conforms, place, backend=backend)
