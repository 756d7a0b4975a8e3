"""Webhooks come in: checked, noted for good, answered. What they ask for is done later, by the worker.

The order matters: nothing is read from a stranger before it is clear that it could be believed, nothing is understood
before it is believed, and nothing is answered with a success before it is durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from everturn.errors import Denied, EverturnError, Invalid, Unavailable
from everturn.forges import FORGES, Delivery, Forge
from everturn.forges.payloads import FORM, JSON, content_type_of
from everturn.logbook.entries import Answer
from everturn.service.parts import Parts
from everturn.service.web.problems import explain, explain_error, problems_of
from everturn.telemetry import get_logger

HELD_BYTES = 128 << 20  # bodies that are being received or understood, all together
FREE_BYTES = 128 << 10  # of each body, not counted: large ones that never end do not keep usual ones out
AT_ONCE = 4  # large ones that are understood; in no thread that pages wait in
ANSWER_S = 9.0  # forges wait for ten seconds

_LARGE_BYTES = 64 << 10  # what takes longer than a moment to understand
_OURS = ("x-github-", "x-hub-", "x-gitea-", "x-forgejo-", "x-gitlab-", "webhook-")
_OURS_TOO = ("content-type", "idempotency-key")


class Receipt(BaseModel):
    """What became of a webhook."""

    model_config = ConfigDict(extra="forbid")

    status: Answer = Field(
        description="`queued`: it will be done; `duplicate`: it came before; `ignored`: nothing is to be done"
    )
    delivery: str = Field(description="the forge's id of it")
    reason: str = Field("", description="why nothing is to be done")


class Turned(EverturnError):
    """A webhook is not taken.

    Args:
        status: The status of the response.
        message: See `EverturnError`.
        hint: See `EverturnError`.
    """

    def __init__(self, status: int, message: str, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Reception:
    """Takes webhooks in.

    Args:
        parts: What the service works with.
        wake: Tells the worker that there is something to do.
        held_bytes: How much of bodies may be in memory at once, beyond the first `FREE_BYTES` of each.
    """

    def __init__(self, parts: Parts, wake: Callable[[], None], held_bytes: int) -> None:
        self._parts = parts
        self._wake = wake
        self._room = held_bytes
        self._turns = CapacityLimiter(AT_ONCE)
        self._log = get_logger()

    async def take(self, forge: Forge, request: Request) -> Response:
        """Take a webhook, and answer it. What it asks for is durable by then.

        Args:
            forge: Whom it should be from.
            request: The webhook.
        """
        metrics = self._parts.metrics
        begun = self._parts.clock.elapsed()
        try:
            delivery, answer = await self._note(forge, request)
        except Turned as error:
            metrics.webhooks.labels("refused").inc()
            self._log.warning("webhook_refused", forge=forge.name, status=error.status, reason=error.message)
            return explain_error(error, status=error.status)
        except EverturnError as error:
            metrics.webhooks.labels("failed").inc()
            self._log.error("webhook_failed", forge=forge.name, reason=error.message)
            return explain(
                503, "the webhook could not be noted", "send it again in a while; the service's log says why"
            )
        finally:
            metrics.webhook_seconds.observe(self._parts.clock.elapsed() - begun)
        metrics.webhooks.labels(answer).inc()
        self._log.info(
            "webhook_answered", forge=forge.name, delivery=delivery.delivery_id, kind=delivery.event, answer=answer
        )
        receipt = Receipt(status=answer, delivery=delivery.delivery_id, reason=delivery.ignored)
        return JSONResponse(receipt.model_dump(), 202 if answer == "queued" else 200)

    async def _note(self, forge: Forge, request: Request) -> tuple[Delivery, Answer]:
        secrets = self._parts.settings.secrets_of(forge.name)
        if not secrets:
            hint = "set EVERTURN_WEBHOOK_SECRETS to take them"
            raise Turned(403, f"webhooks of {forge.name} are off", hint=hint)
        headers = _headers(request)
        _check_headers(forge, headers)
        with self._held() as hold:
            body = await _receive(request, hold)
            if len(body) > _LARGE_BYTES:
                delivery = await run_sync(self._understand, forge, headers, body, secrets, limiter=self._turns)
            else:
                delivery = self._understand(forge, headers, body, secrets)
        return delivery, await self._keep(delivery)

    def _understand(
        self, forge: Forge, headers: Mapping[str, str], body: bytes, secrets: tuple[str, ...]
    ) -> Delivery:
        try:
            forge.verify(headers, body, secrets, self._parts.clock.now())
        except Denied as error:
            raise Turned(401, error.message, hint=error.hint) from None
        try:
            return forge.read(headers, body)
        except Invalid as error:
            raise Turned(422 if _is_object(headers, body) else 400, error.message, hint=error.hint) from None

    async def _keep(self, delivery: Delivery) -> Answer:
        happening = delivery.happening
        noted = self._parts.logbook.deliveries.put(
            delivery.forge,
            delivery.delivery_id,
            delivery.event,
            None if happening is None else happening.facts(),
            delivery.ignored,
        )
        try:
            async with asyncio.timeout(ANSWER_S):
                # Not cancelled with us: it may be on its way to the disk, and then the forge's next try is a replay.
                answer = await asyncio.shield(asyncio.wrap_future(noted))
        except TimeoutError:
            hint = "send it again; if it was noted after all, nothing is done twice"
            raise Unavailable("the webhook could not be noted in time", hint=hint) from None
        if answer == "queued":
            self._wake()
        return answer

    @contextmanager
    def _held(self) -> Iterator[Callable[[int], None]]:
        """Return what counts the bytes that are held until the block ends."""
        come = held = 0

        def hold(count: int) -> None:
            nonlocal come, held
            come += count
            more = max(0, come - FREE_BYTES) - held
            if more > self._room:
                raise Unavailable("too many webhooks come at once", hint="send it again in a moment")
            self._room -= more
            held += more

        try:
            yield hold
        finally:
            self._room += held


def attach(app: FastAPI, parts: Parts, wake: Callable[[], None]) -> None:
    """Add the routes for webhooks to an app.

    Args:
        app: The app.
        parts: What the service works with.
        wake: Tells the worker that there is something to do.
    """
    app.state.reception = Reception(parts, wake, HELD_BYTES)
    app.include_router(router)


def _endpoint(forge: Forge) -> Callable[[Request], Any]:
    async def take(request: Request) -> Response:
        reception: Reception = request.app.state.reception
        return await reception.take(forge, request)

    return take


def _described(forge: Forge) -> dict[str, Any]:
    """Return what the API's document says of the headers and the body, which we read ourselves."""
    schemas = {
        JSON: {"type": "object"},
        FORM: {"type": "object", "properties": {"payload": {"type": "string"}}, "required": ["payload"]},
    }
    return {
        "parameters": [
            {"name": each, "in": "header", "required": len(forge.signed_by) == 1, "schema": {"type": "string"}}
            for each in forge.signed_by
        ],
        "requestBody": {
            "required": True,
            "content": {kind: {"schema": schemas[kind]} for kind in forge.content_types},
        },
    }


def _router() -> APIRouter:
    """Return the routes: one for each forge, so that no header decides whom a webhook is from."""
    made = APIRouter(prefix="/webhooks", tags=["webhooks"])
    for name, forge in FORGES.items():
        made.add_api_route(
            f"/{name}",
            _endpoint(forge),
            methods=["POST"],
            status_code=202,
            name=f"{name} webhook",
            operation_id=f"{name}_webhook",
            summary=f"Take a webhook of {name}",
            response_model=Receipt,
            responses={
                200: {"model": Receipt, "description": "Nothing is to be done, or it came before"},
                202: {"model": Receipt, "description": "It will be done, whatever happens to the service"},
                **problems_of(400, 401, 403, 408, 413, 415, 422, 503),
            },
            openapi_extra=_described(forge),
        )
    return made


def _headers(request: Request) -> dict[str, str]:
    """Return the headers by their names.

    Raises:
        Turned: One that forges send is there twice: others may have understood the other one.
    """
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        if name in found and (name.startswith(_OURS) or name in _OURS_TOO):
            raise Turned(400, f"the header {name} is there twice", hint="send it once")
        found[name] = value
    return found


def _check_headers(forge: Forge, headers: Mapping[str, str]) -> None:
    if not any(headers.get(name) for name in forge.signed_by):
        wanted = " or ".join(forge.signed_by)
        hint = "give the forge the secret that is set here; see docs/webhooks.md"
        raise Turned(401, f"the webhook is not signed: there is no {wanted}", hint=hint)
    if content_type_of(headers) not in forge.content_types:
        raise Turned(415, f"the content type is not {' or '.join(forge.content_types)}", hint="set it at the forge")


async def _receive(request: Request, hold: Callable[[int], None]) -> bytes:
    pieces = []
    async for piece in request.stream():
        hold(len(piece))
        pieces.append(piece)
    return b"".join(pieces)


def _is_object(headers: Mapping[str, str], body: bytes) -> bool:
    """Tell whether a body is what it says it is, whatever may be missing in it."""
    if content_type_of(headers) == FORM:
        return body.startswith(b"payload=")
    try:
        return isinstance(orjson.loads(body), dict)
    except orjson.JSONDecodeError:
        return False


router = _router()
