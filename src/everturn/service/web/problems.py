"""How the service says that something is wrong: one shape of JSON for programs, a plain page for people."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.responses import HTMLResponse, JSONResponse
from markupsafe import escape
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from everturn.errors import Conflict, Corrupt, Denied, EverturnError, Fenced, Invalid, NotFound, Unavailable

PROGRAMS = ("/api", "/admin", "/webhooks", "/healthz", "/readyz", "/metrics")  # everything else is for people

_STATUSES: tuple[tuple[type[EverturnError], int], ...] = (
    (Invalid, 400),
    (Denied, 403),
    (NotFound, 404),
    (Conflict, 409),
    (Fenced, 409),
    (Unavailable, 503),
    (Corrupt, 500),
)
_KINDS = {
    400: "invalid",
    401: "denied",
    403: "denied",
    404: "not_found",
    405: "invalid",
    408: "slow",
    409: "conflict",
    413: "too_large",
    415: "invalid",
    421: "invalid",
    422: "invalid",
    429: "too_many",
    431: "too_large",
    503: "unavailable",
}


class Problem(BaseModel):
    """What was wrong, and what to do about it."""

    model_config = ConfigDict(extra="forbid")

    kind: str = Field(description="what kind of problem it is, for programs")
    message: str = Field(description="one sentence that says what happened")
    hint: str = Field(description="what can be done about it")


class Trouble(BaseModel):
    """The body of every response that is not a success."""

    model_config = ConfigDict(extra="forbid")

    error: Problem


def status_of(error: EverturnError) -> int:
    """Return the status of a response that says so."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def explain(
    status: int, message: str, hint: str, *, path: str = "/api", headers: Mapping[str, str] | None = None
) -> Response:
    """Return a response that says what is wrong.

    Args:
        status: Its status.
        message: One sentence, without a final full stop.
        hint: What to do about it.
        path: Where it was asked for: that tells who reads it.
        headers: More headers.
    """
    if is_for_programs(path):
        problem = Problem(kind=_KINDS.get(status, "failed"), message=message, hint=hint)
        return JSONResponse(Trouble(error=problem).model_dump(), status, headers=headers)
    title = escape(f"{status} {phrase(status)}")
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<title>{title}</title></head><body><main><h1>{title}</h1>"
        f"<p>{escape(message)}.</p><p>{escape(hint)}.</p></main></body></html>"
    )
    return HTMLResponse(page, status, headers=headers)


def problems_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what the API's document says of responses that are no successes."""
    return {status: {"model": Trouble, "description": phrase(status)} for status in statuses}


def is_for_programs(path: str) -> bool:
    """Tell whether it is programs that ask for a path."""
    return any(path == each or path.startswith(each + "/") for each in PROGRAMS)


def phrase(status: int) -> str:
    """Return what HTTP calls a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
