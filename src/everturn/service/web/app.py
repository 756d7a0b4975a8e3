"""The service as an ASGI app: which address leads where, and what every request meets on its way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.middleware import Middleware
from fastapi.security import HTTPBasic, HTTPBearer
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from everturn.errors import EverturnError
from everturn.forges import FORGES
from everturn.service.dashboard import pages
from everturn.service.dashboard.rendering import Renderer
from everturn.service.parts import Parts
from everturn.service.views.desk import Desk
from everturn.service.web import admin, api, webhooks
from everturn.service.web.access import Doorkeeper, Doors, is_loopback
from everturn.service.web.guards import SMALL_BODY_BYTES, KnownHosts, Shield, SizeLimit, names_of
from everturn.service.web.health import Readiness
from everturn.service.web.problems import explain, is_for_programs, phrase, problems_of, status_of

# These say in the API's document what is wanted; it is the doors that want it.
_READ = (
    Depends(HTTPBearer(auto_error=False, scheme_name="read", description="the read token, if there is one")),
    Depends(HTTPBasic(auto_error=False, scheme_name="password", description="the read token as anybody's password")),
)
_PARSING = "the body cannot be read"

# Routes are made once, here and elsewhere: that takes longer than all else that an app needs to start.
_own = APIRouter(tags=["service"])


class Life(BaseModel):
    """That the process lives."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["ok"] = "ok"


class Lack(BaseModel):
    """Something that the service needs and cannot use."""

    model_config = ConfigDict(extra="forbid")

    part: str = Field(description="`logbook`, `registry` or `store`")
    message: str = Field(description="what is wrong with it")


class Ready(BaseModel):
    """Whether the service can do its work."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["ready", "starting", "stopping", "unusable"]
    lacks: list[Lack] = Field(default_factory=list, description="what it cannot use")


def make_app(
    parts: Parts,
    desk: Desk | None = None,
    *,
    office: admin.Office | None = None,
    wake: Callable[[], None] = lambda: None,
    readiness: Readiness | None = None,
    host: str | None = None,
) -> FastAPI:
    """Return the service's app. Nothing is started: `everturn.service.serving` does that.

    Args:
        parts: What it works with.
        desk: What the API and the pages ask; without one there are neither.
        office: Does what admins ask for; without one there are no such routes.
        wake: Tells the worker that there is something to do.
        readiness: Knows whether the service can do its work; without one it always can.
        host: What it listens on; the setting, if not given.
    """
    settings = parts.settings
    host = host or settings.serve_host
    names = names_of((host, settings.serve_host), settings.serve_names, is_loopback=is_loopback(host))
    keeper = Doorkeeper(settings, parts.metrics)
    limits = {f"/webhooks/{name}": settings.webhook_limit_bytes for name in FORGES}
    app = FastAPI(
        title="Everturn",
        version=version("everturn"),
        description="What the service of a fleet can be asked. See docs/service.md.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # they load from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # to where the client says that we are
        middleware=[
            Middleware(Shield),
            Middleware(KnownHosts, names),
            Middleware(Doors, keeper),
            Middleware(SizeLimit, lambda path: limits.get(path, SMALL_BODY_BYTES)),
        ],
        exception_handlers={
            EverturnError: _on_error,
            RequestValidationError: _on_invalid,
            HTTPException: _on_status,
        },
    )
    app.state.metrics, app.state.readiness = parts.metrics, readiness
    app.include_router(_own)
    webhooks.attach(app, parts, wake)
    if office is not None:
        admin.attach(app, office)
    if desk is not None:
        _seat(app, desk, parts)
    return app


def _seat(app: FastAPI, desk: Desk, parts: Parts) -> None:
    """Add the API and the pages; their errors look like pages, too."""
    api.attach(app, desk, dependencies=_READ)
    app.state.renderer = renderer = Renderer(parts.clock, desk.version)
    app.router.routes.extend(pages.routes(desk, renderer, parts.metrics))


@_own.get("/healthz", operation_id="health")
async def health() -> Life:
    """Tell that the process lives."""
    return Life()


@_own.get(
    "/readyz",
    operation_id="readiness",
    responses={503: {"model": Ready, "description": "It cannot"}},
)
async def ready(request: Request, response: Response) -> Ready:
    """Tell whether the service can do its work."""
    found = _readiness(request.app.state.readiness)
    response.status_code = 200 if found.status == "ready" else 503
    return found


@_own.get(
    "/metrics",
    operation_id="metrics",
    dependencies=_READ,
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems_of(401)},
)
async def metrics(request: Request) -> Response:
    """Return all metrics, as Prometheus reads them."""
    try:
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
    except (TypeError, ValueError):  # it names a version that is none
        encode, media_type = choose_encoder("")
    content = await run_sync(encode, request.app.state.metrics.registry)
    return Response(content, headers={"content-type": media_type})


def _readiness(readiness: Readiness | None) -> Ready:
    if readiness is None:
        return Ready(status="ready")
    if readiness.phase != "running":
        return Ready(status=readiness.phase)
    lacks = [Lack(part=each.part, message=each.message) for each in readiness.ailments()]
    return Ready(status="unusable" if lacks else "ready", lacks=lacks)


async def _on_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, EverturnError):  # the framework promises that it is
        raise error
    return _answered(request, status_of(error), error.message, error.hint)


async def _on_invalid(request: Request, error: Exception) -> Response:
    """Say which field is wrong, and not what was sent: it may be a secret in the wrong place."""
    errors: Sequence[Any] = error.errors() if isinstance(error, RequestValidationError) else ()
    first: dict[str, Any] = next(iter(errors), {})
    if first.get("type") == "json_invalid":
        return _answered(request, 400, _PARSING, "send JSON")
    where = ".".join(str(each) for each in first.get("loc", ())) or "request"
    said = str(first.get("msg", "is wrong"))
    message = f"{where}: {said[:1].lower()}{said[1:]}"
    return _answered(request, 422, message, "see docs/service.md, or /api/openapi.json")


async def _on_status(request: Request, error: Exception) -> Response:
    """Say what the framework says, in our words."""
    if not isinstance(error, HTTPException):
        raise error
    listed = "docs/service.md lists what there is" if is_for_programs(request.url.path) else "check the address"
    hints = {404: listed, 405: "the header Allow says which methods there are"}
    messages = {404: "there is nothing here", 405: "nothing can be done here by this method", 400: _PARSING}
    message = messages.get(error.status_code) or str(error.detail or phrase(error.status_code))
    hint = getattr(error, "hint", None) or hints.get(error.status_code, "see docs/service.md")
    response = _answered(request, error.status_code, message, hint)
    response.headers.update(error.headers or {})
    return response


def _answered(request: Request, status: int, message: str, hint: str) -> Response:
    renderer: Renderer | None = getattr(request.app.state, "renderer", None)
    if renderer is None or is_for_programs(request.url.path):
        return explain(status, message, hint, path=request.url.path)
    return renderer.error(request, status, message, hint)
