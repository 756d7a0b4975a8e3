"""Counts requests, and bytes both ways, where they arrive: at the server. Needs nothing but the standard library, as
the server has an environment of its own.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

COUNTS_PATH = "/_bench/counts"

Scope = dict[str, Any]
Asgi = Callable[[Scope, Any, Any], Awaitable[None]]


class Counts:
    """How many requests of each kind have arrived since they were last asked for. Safe to share by threads."""

    def __init__(self) -> None:
        self._counter: Counter[str] = Counter()
        self._lock = threading.Lock()

    def note(self, method: str, path: str, query: str, length: int) -> None:
        """Count one request."""
        kind = _kind(method, path, query)
        with self._lock:
            self._counter[kind] += 1
            self._counter["bytes_in"] += length

    def note_sent(self, length: int) -> None:
        """Count bytes of an answer."""
        with self._lock:
            self._counter["bytes_out"] += length

    def take(self) -> dict[str, int]:
        """Return the counts and begin anew."""
        with self._lock:
            taken = dict(self._counter)
            self._counter.clear()
            return taken

    def asgi(self, app: Asgi) -> Asgi:
        """Wrap an ASGI server's application."""

        async def counted(scope: Scope, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                if scope["path"] == COUNTS_PATH:
                    await _answer(send, json.dumps(self.take()).encode())
                    return
                headers = dict(scope["headers"])
                length = int(headers.get(b"content-length", b"0"))
                self.note(scope["method"], scope["path"], scope["query_string"].decode(), length)

            async def sent(message: Any) -> None:
                self.note_sent(len(message.get("body", b"")))
                await send(message)

            await app(scope, receive, sent)

        return counted

    def wsgi(self, app: Any) -> Any:
        """Wrap a WSGI server's application."""

        def counted(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            path = environ["PATH_INFO"]
            if path == COUNTS_PATH:
                body = json.dumps(self.take()).encode()
                start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
                return [body]
            length = int(environ.get("CONTENT_LENGTH") or 0)
            self.note(environ["REQUEST_METHOD"], path, environ.get("QUERY_STRING", ""), length)
            answer = [*app(environ, start_response)]
            self.note_sent(sum(map(len, answer)))
            return answer

        return counted


def _kind(method: str, path: str, query: str) -> str:
    """Name a request as a price list does."""
    is_object = "/" in path.strip("/")
    if method == "GET":
        return "GET" if is_object else "LIST"
    if method == "POST" and "delete" in parse_qs(query, keep_blank_values=True):
        return "DELETE"
    return method


async def _answer(send: Any, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
