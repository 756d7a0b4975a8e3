"""The service as an ASGI app: which address leads where, and what every request meets on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI

from everturn.service.parts import Parts

if TYPE_CHECKING:
    from everturn.service.views.desk import Desk


def make_app(parts: Parts, desk: Desk | None = None) -> FastAPI:
    """Return the service's app. Nothing is started: `everturn.service.serving` does that.

    Args:
        parts: What it works with.
        desk: What the API and the pages ask; without one there are neither.
    """
    return FastAPI(title="Everturn", openapi_url="/api/openapi.json", docs_url=None, redoc_url=None)
