"""What every request meets before anybody works at it, and every response on its way out."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from everturn.service.web.problems import explain
from everturn.service.web.protocol import STREAM
from everturn.telemetry import get_logger

SMALL_BODY_BYTES = 64 << 10  # what is asked of us, webhooks apart, is a few fields at most
HEADERS = 100  # in one request
HEAD_BYTES = 32 << 10
TRACED = 12  # frames of an exception that nobody expected
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")

PAGE_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_POLICY = "default-src 'none'; frame-ancestors 'none'"
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_PROBES = ("/healthz", "/readyz")  # asked by address, by whoever looks after the machine; they give nothing away


class Shield:
    """Puts headers on every response that tell browsers to be careful, and lets no exception out.

    A header that a response brings along stays as it is. What nobody expected is answered with 500, without a trace,
    and logged once, with one. `HEAD` is answered as `GET` is, without the body.

    Args:
        app: What works at requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._log = get_logger()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            return
        way_out = _WayOut(scope, send)
        if _is_head_too_large(scope):
            response = explain(431, "the request's head is too large", "send fewer headers")
            await response(scope, receive, way_out.send)
            return
        if _is_ambiguous(scope):
            message, hint = "the request says in two ways where it ends", "send no content-length with chunks"
            response = explain(400, message, hint, headers={"connection": "close"})
            await response(scope, receive, way_out.send)
            return
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        try:
            await self._app(inner, receive, way_out.send)
        except ClientDisconnect:
            return
        except Exception as error:
            method, kind = scope["method"], type(error).__name__
            self._log.error("request_failed", method=method, route=_route(inner), error=kind, trace=_trace(error))
            if way_out.begun:
                raise  # the server ends the connection, so that nobody takes half of it for all
            response = explain(
                500, "something went wrong inside the service", "its log says what", path=scope["path"]
            )
            await response(inner, receive, way_out.send)


class _WayOut:
    """The way of one response to the client."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._bodiless = scope["method"] == "HEAD"
        self.begun = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._dress(message)
            self.begun = True
            await self._send(message)
            if self._bodiless:
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        elif not self._bodiless:
            await self._send(message)

    def _dress(self, message: Message) -> None:
        message.setdefault("headers", [])
        headers = MutableHeaders(scope=message)
        media_type = headers.get("content-type", "").partition(";")[0].strip()
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)
        headers.setdefault("content-security-policy", PAGE_POLICY if media_type == "text/html" else _POLICY)
        if media_type == "text/event-stream":
            self._scope.setdefault("state", {})[STREAM] = True


def _is_head_too_large(scope: Scope) -> bool:
    """The server looks at the size of heads that come in pieces only."""
    headers = scope["headers"]
    return len(headers) > HEADERS or sum(len(name) + len(value) for name, value in headers) > HEAD_BYTES


def _is_ambiguous(scope: Scope) -> bool:
    """A proxy may have gone by the length where the server goes by the chunks: what follows need not be a request."""
    names = {name for name, _ in scope["headers"]}
    return b"content-length" in names and b"transfer-encoding" in names


def _trace(error: BaseException) -> list[str]:
    """Return where an exception was raised: places in the code, and none of the values that it may carry."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.name} ({Path(frame.filename).name}:{frame.lineno})" for frame in frames[-TRACED:]]


def _route(scope: Scope) -> str:
    """Return what was asked for as we wrote it, not as the client did."""
    return str(getattr(scope.get("route"), "path", "")) or "?"


class KnownHosts:
    """Answers only to names that are ours: a page of somebody else could have its name lead here.

    Args:
        app: What works at requests.
        names: The names, in small letters; empty: any.
    """

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        self._app = app
        self._names = frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if self._names and scope["path"] not in _PROBES and _host(scope) not in self._names:
            hint = "ask by the service's own name; the setting serve_names says which there are"
            response = explain(421, "the service does not go by that name", hint, path=scope["path"])
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)


def names_of(hosts: Sequence[str], names: Sequence[str], *, is_loopback: bool) -> tuple[str, ...]:
    """Return the names that the service answers to; none: any.

    Args:
        hosts: What it was told to listen on, and where that is.
        names: Those that are set.
        is_loopback: Whether it can be reached from this machine only.
    """
    if not names and not is_loopback:
        return ()
    return tuple(each.lower().rstrip(".").strip("[]") for each in (*names, *hosts, *LOOPBACK_NAMES))


def _host(scope: Scope) -> str:
    """Return the name a request was sent to, without the port."""
    given = Headers(scope=scope).get("host", "").lower()
    name, bracket, _ = given.partition("]")
    if bracket:
        return name.removeprefix("[")
    return name.partition(":")[0].rstrip(".")


class TooLarge(HTTPException):
    """A body turned out to be too large while it was read.

    Args:
        message: One sentence that says so.
        hint: What to do.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(413, message)
        self.hint = hint


class SizeLimit:
    """Refuses bodies that are too large: at once if they say so, else when too much has come.

    Args:
        app: What works at requests.
        limit_of: How many bytes the body of a request for this path may have.
    """

    def __init__(self, app: ASGIApp, limit_of: Callable[[str], int]) -> None:
        self._app = app
        self._limit_of = limit_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        limit = self._limit_of(scope["path"])
        declared = Headers(scope=scope).get("content-length", "0")
        if int(declared) > limit:  # the server has refused what is no number
            response = explain(413, *_too_large(limit), path=scope["path"])
            await response(scope, receive, send)
            return
        come = 0

        async def counted() -> Message:
            nonlocal come
            message = await receive()
            come += len(message.get("body", b""))
            if come > limit:
                raise TooLarge(*_too_large(limit))
            return message

        await self._app(scope, counted, send)


def _too_large(limit: int) -> tuple[str, str]:
    return f"the body has more than {limit} bytes", "send less; for webhooks, webhook_limit_bytes says how much"
