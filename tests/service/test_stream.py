"""Browsers are told of news, and cost little whatever they do."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import psutil
import pytest
from prometheus_client import CollectorRegistry, Gauge
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from everturn.service.dashboard.stream import Streams
from fleets import FakeDesk, serving
from polling import wait_until

SOON_S = 10.0


def streams_of(news: Any, **given: Any) -> tuple[Streams, Callable[[], float]]:
    gauge = Gauge("streams", "Streams.", registry=CollectorRegistry())
    options: dict[str, Any] = {"pause_s": 0.0, **given}
    return Streams(news, gauge, **options), gauge._value.get


class Browser:
    """Asks for a stream, and writes down what it is sent."""

    def __init__(self, streams: Streams, asked: str = "since=1", *, method: str = "GET", reads: bool = True) -> None:
        self._streams = streams
        self._scope = {
            "type": "http",
            "method": method,
            "path": "/live",
            "query_string": asked.encode(),
            "headers": [],
        }
        self._may_read = asyncio.Event()
        self._gone = asyncio.Event()
        self._news = asyncio.Event()
        self.messages: list[dict[str, Any]] = []
        if reads:
            self._may_read.set()
        self.task = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        response = await self._streams.answer(Request(self._scope))
        await response(self._scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self._may_read.wait()
        self.messages.append(message)
        self._news.set()

    def leave(self) -> None:
        self._gone.set()

    @property
    def text(self) -> str:
        return b"".join(each.get("body", b"") for each in self.messages).decode()

    async def hears(self, text: str) -> None:
        async with asyncio.timeout(SOON_S):
            while text not in self.text:
                self._news.clear()
                await self._news.wait()

    async def ended(self) -> None:
        await asyncio.wait_for(asyncio.shield(self.task), SOON_S)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


def test_a_browser_is_told_when_there_are_news_and_not_before() -> None:
    async def test() -> None:
        desk = FakeDesk()
        streams, _ = streams_of(desk)
        browser = Browser(streams)
        await browser.hears(": hello")
        assert "version" not in browser.text
        desk.publish()
        await browser.hears("event: version\ndata: 2\n\n")
        desk.publish()
        await browser.hears("event: version\ndata: 3\n\n")
        browser.leave()
        await browser.ended()

    run(test)


@pytest.mark.parametrize("asked", ["since=0", "since=99", "", "since=-1"])
def test_a_browser_that_knows_another_version_is_told_at_once(asked: str) -> None:
    async def test() -> None:
        streams, _ = streams_of(FakeDesk())
        browser = Browser(streams, asked)
        await browser.hears("data: 1\n\n")
        browser.leave()
        await browser.ended()

    run(test)


def test_a_stream_is_never_silent_for_long() -> None:
    async def test() -> None:
        streams, _ = streams_of(FakeDesk(), beat_s=0.01)
        browser = Browser(streams)
        await browser.hears("event: beat\ndata: 1\n\nevent: beat\n")
        browser.leave()
        await browser.ended()

    run(test)


def test_streams_end_when_there_will_be_no_more_news() -> None:
    async def test() -> None:
        desk = FakeDesk()
        streams, count = streams_of(desk)
        browsers = [Browser(streams) for _ in range(5)]
        for browser in browsers:
            await browser.hears(": hello")
        assert count() == 5
        desk.stop()
        for browser in browsers:
            await browser.ended()
            assert browser.messages[-1]["more_body"] is False
        assert count() == 0

    run(test)


def test_whoever_leaves_makes_room_for_others() -> None:
    async def test() -> None:
        desk = FakeDesk()
        streams, count = streams_of(desk, limit=2)
        first, second = Browser(streams), Browser(streams)
        await first.hears(": hello")
        await second.hears(": hello")
        refused = Browser(streams)
        await refused.ended()
        start, body = refused.messages
        assert start["status"] == 429
        assert (b"retry-after", b"60") in start["headers"]
        assert json.loads(body["body"])["error"]["kind"] == "too_many"
        first.leave()
        await first.ended()
        assert desk.waiting == 1
        third = Browser(streams)
        await third.hears(": hello")
        assert count() == 2
        for browser in (second, third):
            browser.leave()
            await browser.ended()
        assert count() == 0

    run(test)


@pytest.mark.parametrize(
    "asked",
    ["since=x", "since=1e3", "since=", "since=-", "since=" + "9" * 5000, "since=" + "0" * 20 + "9" * 5000],
)
def test_what_is_no_version_is_refused(asked: str) -> None:
    async def test() -> None:
        streams, _ = streams_of(FakeDesk())
        browser = Browser(streams, asked)
        await browser.ended()
        assert browser.messages[0]["status"] == 400
        assert json.loads(browser.messages[1]["body"])["error"]["kind"] == "invalid"

    run(test)


def test_only_the_headers_of_a_stream_can_be_asked_for() -> None:
    async def test() -> None:
        streams, count = streams_of(FakeDesk())
        browser = Browser(streams, method="HEAD")
        await browser.ended()
        assert [each["type"] for each in browser.messages] == ["http.response.start", "http.response.body"]
        assert count() == 0

    run(test)


def test_a_client_that_does_not_read_is_let_go_of() -> None:
    async def test() -> None:
        desk = FakeDesk()
        streams, count = streams_of(desk, send_timeout_s=0.02)
        browser = Browser(streams, reads=False)
        await browser.ended()
        assert (count(), desk.waiting) == (0, 0)

    run(test)


class Storm:
    """There are always news."""

    async def changed(self, since: int, session_id: str | None = None) -> int:
        await asyncio.sleep(0)
        return since + 1


@pytest.mark.slow
def test_clients_that_never_read_cost_no_memory_and_no_place_for_long() -> None:
    streams, count = streams_of(Storm(), send_timeout_s=0.5, limit=3)
    app: Any = Starlette(routes=[Route("/live", streams.answer)])
    with serving(app) as address:
        port = int(address.rpartition(":")[2])
        before = psutil.Process().memory_info().rss
        clients = []
        for _ in range(3):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            client.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
            clients.append(client)
        wait_until(lambda: count() > 0, "streams begin")
        wait_until(lambda: count() == 0, "streams of clients that do not read end", timeout_s=60)
        assert psutil.Process().memory_info().rss - before < 10 << 20
        for client in clients:
            client.close()
