"""A real S3 server that can be made to misbehave, request by request."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from everturn.clock import Clock
from everturn.log.objects import BlockingObjects
from everturn.log.stores import locate
from everturn.settings import Settings
from everturn.testing import LoopbackS3
from polling import wait_until

Answer = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def answering(status: str, body: str = "") -> Answer:
    """Answer with this, and do nothing."""

    def answer(request: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        request["wsgi.input"].read(int(request.get("CONTENT_LENGTH") or 0))
        start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body.encode()]

    return answer


def refusing(status: str, code: str) -> Answer:
    return answering(status, f"<Error><Code>{code}</Code></Error>")


SLOW_DOWN = refusing("503 Slow Down", "SlowDown")


def hang_up(request: dict[str, Any], _start: Callable[..., Any]) -> Iterable[bytes]:
    """Close the connection without an answer."""
    request["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return []


class Troubled:
    """WSGI middleware: `troubles` hit the next requests, one each; `rule` looks at all of them."""

    def __init__(self) -> None:
        self.troubles: list[Answer] = []
        self.rule: Callable[[dict[str, Any]], Answer | None] = lambda _request: None
        self.asked: list[str] = []
        self.refused = 0
        self.in_flight = 0
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._app: Any = None

    def __call__(self, app: Any) -> Any:
        self._app = app
        return self._answer

    def end(self) -> None:
        """Be well again, and wait until nobody is kept waiting any more."""
        self.troubles.clear()
        self.rule = lambda _request: None
        self.over.set()
        wait_until(lambda: self.in_flight == 0, "the end of all requests")
        self.over = threading.Event()

    def stay_silent(self, request: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """Answer when the test is over."""
        self.over.wait()
        return answering("500 Too Late")(request, start)

    def _answer(self, request: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        with self._lock:
            self.in_flight += 1
            self.asked.append(f"{request['REQUEST_METHOD']} {request['PATH_INFO']}?{request['QUERY_STRING']}")
            trouble = self.troubles.pop(0) if self.troubles else self.rule(request)
            self.refused += trouble is not None
        try:
            return list((trouble or self._app)(request, start))
        finally:
            with self._lock:
                self.in_flight -= 1


@contextlib.contextmanager
def troubled_server() -> Iterator[tuple[LoopbackS3, Troubled]]:
    trouble = Troubled()
    with LoopbackS3.start(wrap=trouble) as server:
        yield server, trouble
        trouble.end()


def objects_of(
    server: LoopbackS3, monkeypatch: pytest.MonkeyPatch, clock: Clock | None = None, **settings: Any
) -> BlockingObjects:
    """Return objects in a fresh bucket."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return locate(f"s3://{server.fresh_bucket()}/prefix", Settings.load(**settings), clock)
