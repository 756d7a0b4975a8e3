"""A scripted model: a Messages API on loopback that says what a test wants it to say.

The real agent command runs against it offline, with its real tools, at no cost:

```python
model = ScriptedModel([Reply(ToolUse("Bash", {"command": "echo hi"})), Reply("It said hi.")])
with model.serve() as url:
    options = ClaudeAgentOptions(env=cli_environment(url, home), permission_mode="bypassPermissions")
    ...
assert model.requests[1].tool_results()[0][1] == "hi"
```
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from everturn.testing.messages_api import (
    Block,
    Disconnect,
    Failure,
    ModelRequest,
    Reply,
    Script,
    ScriptEndedError,
    Step,
    Text,
    Thinking,
    ToolUse,
    check_step,
    count_tokens,
    error_body,
    in_order,
    message_body,
    message_events,
    parse_request,
)
from everturn.testing.serving import ThreadServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Receive, Scope, Send

__all__ = [
    "Block",
    "Disconnect",
    "Failure",
    "ModelRequest",
    "Reply",
    "Script",
    "ScriptedModel",
    "Step",
    "Text",
    "Thinking",
    "ToolUse",
    "cli_environment",
]

_HOST = "127.0.0.1"
_STOP_TIMEOUT_S = 10.0


class ScriptedModel:
    """A model that follows a script, served on loopback.

    The agent command asks for more than its conversation. A request is **main** if it offers the model a tool
    that the client itself runs (one with an `input_schema`), or carries `context_management`, which the
    command puts into every step of a conversation even when it has no tools; and if it asks for more than one
    token. Steps of subagents are main as well. Everything else is a **side request** (naming the session,
    summing up, judging a hook, asking whether a key or a model works, searching the web, counting tokens): it
    gets `side_reply` or a count, and leaves the script alone.

    All methods may be called from any thread but the server's own. Those that wait block their thread; from
    a coroutine, call them through `asyncio.to_thread`.

    Args:
        script: Either the steps to take in order, one for each main request, or a function that is given each
            main request and returns a step. The function runs inside the server and must not wait for
            anything; use the delays of `Reply`. When a list of steps is used up, or the function raises, the
            request is refused with HTTP 400. A subagent runs beside its parent unless it is told to run in the
            foreground, so their requests come in either order: let a function tell them apart.
        side_reply: The text that answers side requests.

    Raises:
        TypeError: The script holds something that is not a step.
    """

    def __init__(self, script: Script, *, side_reply: str = "ok") -> None:
        self._decide = script if callable(script) else in_order(script)
        self._side_reply = Reply(Text(side_reply))
        self._changed = threading.Condition()
        self._main: list[ModelRequest] = []
        self._side: list[ModelRequest] = []
        self._overruns: list[ModelRequest] = []
        self._script_errors: list[Exception] = []
        self._streamed: dict[int, int] = {}
        self._released: set[int] = set()
        self._exchanges: set[_Exchange] = set()
        self._url: str | None = None

    @property
    def requests(self) -> list[ModelRequest]:
        """The main requests so far, in order of arrival."""
        with self._changed:
            return list(self._main)

    @property
    def side_requests(self) -> list[ModelRequest]:
        """The side requests so far, in order of arrival."""
        with self._changed:
            return list(self._side)

    @property
    def overruns(self) -> list[ModelRequest]:
        """The main requests for which the script had nothing left."""
        with self._changed:
            return list(self._overruns)

    @property
    def script_errors(self) -> list[Exception]:
        """What a script that is a function raised, or a `TypeError` where it returned no step."""
        with self._changed:
            return list(self._script_errors)

    @property
    def open_replies(self) -> int:
        """How many replies are being said, or stalled: neither is their end reached nor has their client left."""
        with self._changed:
            return len(self._exchanges)

    @property
    def url(self) -> str:
        """The base address while it is served, such as `http://127.0.0.1:43211`.

        Raises:
            RuntimeError: It is not being served.
        """
        if self._url is None:
            raise RuntimeError("the scripted model is not being served: use `with model.serve() as url:`")
        return self._url

    def wait_for_requests(self, count: int, timeout_s: float) -> list[ModelRequest]:
        """Wait until `count` main requests have arrived, and return all that have.

        Raises:
            TimeoutError: Fewer had arrived after `timeout_s` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._main) >= count, timeout_s):
                raise TimeoutError(f"{len(self._main)} of {count} requests reached the model within {timeout_s} s")
            return list(self._main)

    def wait_until_streamed(self, request_index: int, chunks: int, timeout_s: float) -> None:
        """Wait until that many chunks of the reply to a main request have been handed to the socket.

        When this returns for the place where a reply stalls, the reply is stalled.

        Raises:
            TimeoutError: Fewer had been sent after `timeout_s` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._streamed.get(request_index, -1) >= chunks, timeout_s):
                sent = self._streamed.get(request_index)
                state = "has not been answered yet" if sent is None else f"was sent {sent} chunks"
                raise TimeoutError(f"waited {timeout_s} s for {chunks} chunks: request {request_index} {state}")

    def release(self, request_index: int | None = None) -> None:
        """Let stalled replies go on.

        Args:
            request_index: Only the reply to this main request; if its stall is still to come, it will be
                passed over. By default every reply that is stalled now.
        """
        with self._changed:
            if request_index is not None:
                self._released.add(request_index)
            for exchange in self._exchanges:
                if exchange.stalled and request_index in {None, exchange.request.index}:
                    exchange.release()

    @contextlib.contextmanager
    def serve(self, port: int = 0) -> Iterator[str]:
        """Serve the model on 127.0.0.1 from a background thread while the block runs; yields its address.

        Leaving the block cuts whatever is still being said. A model can be served again later, also on the
        same port, and goes on where its script stands.

        Args:
            port: The port to listen on; 0 takes a free one.

        Raises:
            OSError: The port cannot be had.
            RuntimeError: It is being served already, or the server did not start or stop.
        """
        if self._url is not None:
            raise RuntimeError(f"the scripted model is already served at {self._url}")
        listener = socket.create_server((_HOST, port))
        # Connections inherit it. asyncio sets it only on sockets that name their protocol, and this one does not.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = ThreadServer(self._app())
        thread = threading.Thread(target=server.run_on, args=(listener,), name="everturn-scripted-model", daemon=True)
        self._url = f"http://{_HOST}:{listener.getsockname()[1]}"
        thread.start()
        try:
            server.wait_until_ready()
            yield self._url
        finally:
            self._hang_up()
            server.stop()
            thread.join(_STOP_TIMEOUT_S)
            listener.close()
        if thread.is_alive():
            raise RuntimeError(f"the scripted model did not stop within {_STOP_TIMEOUT_S} s")

    def _hang_up(self) -> None:
        with self._changed:
            self._url = None
            for exchange in self._exchanges:
                exchange.hang_up()

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/messages", self._messages, methods=["POST"]),
                Route("/v1/messages/count_tokens", self._count_tokens, methods=["POST"]),
            ],
            exception_handlers={HTTPException: _http_error, ClientDisconnect: _nobody_there},
        )

    async def _messages(self, http: Request) -> Response:
        try:
            request = self._arrived(await http.body())
        except ValueError as error:
            return _error(400, "invalid_request_error", str(error))
        step = self._step(request) if request.main else self._side_reply
        if isinstance(step, Failure):
            return _error(step.status, step.error_type, step.message, step.retry_after_s)
        return _Exchange(self, request, step)

    async def _count_tokens(self, http: Request) -> Response:
        try:
            request = self._arrived(await http.body(), counting=True)
        except ValueError as error:
            return _error(400, "invalid_request_error", str(error))
        return JSONResponse({"input_tokens": count_tokens(request)})

    def _arrived(self, raw: bytes, *, counting: bool = False) -> ModelRequest:
        parsed = parse_request(raw, time.monotonic())
        main = parsed.main and not counting
        with self._changed:
            arrived = self._main if main else self._side
            request = replace(parsed, index=len(arrived) + 1, main=main)
            arrived.append(request)
            self._changed.notify_all()
        return request

    def _step(self, request: ModelRequest) -> Step:
        try:
            step = self._decide(request)
            check_step(step)
        except ScriptEndedError as error:
            with self._changed:
                self._overruns.append(request)
            return Failure(400, "invalid_request_error", str(error))
        except Exception as error:  # noqa: BLE001 (the script is the user's: whatever it raises is kept for them)
            with self._changed:
                self._script_errors.append(error)
            return Failure(400, "invalid_request_error", f"the script raised {error!r}")
        return step

    def _opened(self, exchange: _Exchange) -> None:
        with self._changed:
            self._exchanges.add(exchange)
            if self._url is None:
                exchange.hang_up()

    def _sent(self, exchange: _Exchange, chunks: int) -> None:
        request = exchange.request
        if not request.main:
            return
        # The stall begins under the lock that tells of the chunk before it: who has been told can release.
        with self._changed:
            exchange.stalled = exchange.stalls_at(chunks) and request.index not in self._released
            self._streamed[request.index] = chunks
            self._changed.notify_all()

    def _closed(self, exchange: _Exchange) -> None:
        with self._changed:
            self._exchanges.discard(exchange)


class _Exchange(Response):
    """One reply on its way to one client: its pauses, its stall, its cut.

    It lives on the server's loop. `release` and `hang_up` come from other threads, under the model's lock and
    only while the exchange is registered there, so the loop is still running.
    """

    def __init__(self, model: ScriptedModel, request: ModelRequest, step: Reply | Disconnect) -> None:
        super().__init__()
        self.request = request
        self.stalled = False
        self._model = model
        self._reply = step.reply if isinstance(step, Disconnect) else step
        self._cut_after = step.after_chunks if isinstance(step, Disconnect) else None
        self._loop = asyncio.get_running_loop()
        self._gone = asyncio.Event()
        self._go_on = asyncio.Event()

    def stalls_at(self, chunks: int) -> bool:
        """Whether the script wants silence after this many chunks."""
        place = self._reply.stall_after_chunks
        return place is not None and chunks == (place if self.request.streaming else 0)

    def release(self) -> None:
        """End the stall."""
        self.stalled = False
        self._loop.call_soon_threadsafe(self._go_on.set)

    def hang_up(self) -> None:
        """End the exchange as if the client had gone."""
        self._loop.call_soon_threadsafe(self._leave)

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        self._model._opened(self)
        watch = asyncio.create_task(self._watch(receive))
        try:
            await self._silence(self._reply.delay_s)
            await (self._stream(send) if self.request.streaming else self._answer(send))
        finally:
            watch.cancel()
            self._model._closed(self)

    async def _stream(self, send: Send) -> None:
        await _start(send, b"text/event-stream; charset=utf-8")
        chunks = 0
        for event in message_events(self._reply, self.request):
            if not await self._silence(self._reply.chunk_delay_s if event.is_chunk else 0):
                return
            await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
            chunks += event.is_chunk
            if event.is_chunk or event.name == "message_start":
                await self._reached(chunks)
                if chunks == self._cut_after:
                    return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _answer(self, send: Send) -> None:
        await self._reached(0)
        await _start(send, b"application/json")
        if self._gone.is_set() or self._cut_after is not None:
            return
        body = json.dumps(message_body(self._reply, self.request)).encode()
        await send({"type": "http.response.body", "body": body, "more_body": False})
        await self._reached(self._reply.chunk_count)

    async def _reached(self, chunks: int) -> None:
        self._model._sent(self, chunks)
        if self.stalled:
            await self._go_on.wait()

    async def _silence(self, seconds: float) -> bool:
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), seconds)
        return not self._gone.is_set()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        self._gone.set()
        self._go_on.set()


def cli_environment(
    url: str,
    home: str | os.PathLike[str],
    *,
    path: str | None = None,
    tmpdir: str | os.PathLike[str] | None = None,
) -> dict[str, str]:
    """Return a whole, clean environment in which the agent command talks to a scripted model only.

    The SDK lays `ClaudeAgentOptions.env` over the environment of the process that starts it, so variables of
    that process shine through. To leave nothing to chance, start that process with this environment as well.

    Args:
        url: The address that `ScriptedModel.serve` yields.
        home: A directory for the command's settings and transcripts; a fresh one for a test.
        path: The search path for programs; by default the usual system directories.
        tmpdir: A directory for temporary files; by default the system's.
    """
    environment = {
        "PATH": path or "/usr/local/bin:/usr/bin:/bin",
        "HOME": os.fspath(home),
        "LANG": "C.UTF-8",
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "scripted",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_AUTOUPDATER": "1",
        "IS_SANDBOX": "1",  # the command lets root bypass permissions only in a sandbox
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
    if tmpdir is not None:
        environment["TMPDIR"] = os.fspath(tmpdir)
    return environment


def _error(status: int, error_type: str, message: str, retry_after_s: float | None = None) -> Response:
    headers = {} if retry_after_s is None else {"retry-after": f"{retry_after_s:g}"}
    return JSONResponse(error_body(error_type, message), status, headers)


async def _http_error(_http: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = "not_found_error" if error.status_code == 404 else "invalid_request_error"
    return _error(error.status_code, kind, error.detail)


async def _nobody_there(_http: Request, _error: Exception) -> Response:
    return Response(status_code=400)


async def _start(send: Send, content_type: bytes) -> None:
    headers = [(b"content-type", content_type), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
