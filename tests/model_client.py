"""A client for a scripted model."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator

import httpx2

from everturn.testing import ScriptedModel

WAIT_S = 20.0
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the certificates of all authorities takes its time


@contextlib.contextmanager
def served(model: ScriptedModel) -> Iterator[httpx2.Client]:
    """Serve a model, and yield a client that talks to it."""
    with model.serve() as url, httpx2.Client(base_url=url, timeout=WAIT_S, trust_env=False, verify=NO_TLS) as client:
        yield client
