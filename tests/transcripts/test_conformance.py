"""The SDK's own conformance suite, on every kind of store, under both event loops."""

from __future__ import annotations

import anyio
import pytest

from support import StorePlace, assert_conforms


@pytest.mark.parametrize(
    ("place", "backend"),
    [
        ("file", "asyncio"),
        ("file", "trio"),
        ("memory", "asyncio"),
        ("memory", "trio"),
        ("s3", "asyncio"),
        pytest.param("s3", "trio", marks=pytest.mark.slow),
    ],
    indirect=["place"],
)
def test_the_store_passes_the_sdks_conformance_suite(place: StorePlace, backend: str) -> None:
    anyio.run(assert_conforms, place, backend=backend)
