"""A client for a scripted model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx2

from everturn.testing import ScriptedModel

WAIT_S = 20.0


@contextlib.contextmanager
def served(model: ScriptedModel) -> Iterator[httpx2.Client]:
    """Serve a model, and yield a client that talks to it."""
    with model.serve() as url, httpx2.Client(base_url=url, timeout=WAIT_S, trust_env=False) as client:
        yield client
