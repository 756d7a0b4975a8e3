"""Clients that take for ever, talk nonsense, or come in masses: their connections end, and others are served."""

from __future__ import annotations

import dataclasses
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from everturn.service.serving import Server
from everturn.service.web.guards import Shield
from everturn.service.web.listening import address_of, listen
from everturn.service.web.protocol import Config, Limits
from polling import wait_until
from served import Place, read_all, status_of

QUICK = Limits(receive_s=0.2, last_receive_s=0.1, idle_s=0.2, stall_s=0.2, connections=20, idle=10)
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
MUCH = 32 << 20


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Says how much has come; sends much where it is asked for; waits where it is asked to."""
    request = Request(scope, receive)
    if scope["path"] == "/much":
        await Response(bytes(MUCH))(scope, receive, send)
        return
    if scope["path"] == "/for-ever":
        await anyio.sleep_forever()
    body = await request.body()
    await Response(f"{request.method} {len(body)}")(scope, receive, send)


@contextmanager
def server(limits: Limits = QUICK, grace_s: float = 5.0) -> Iterator[Place]:
    begun = threading.Event()
    with listen("127.0.0.1", 0) as listener:
        place = Place(address_of(listener))
        made = Server(Config(Shield(answer), limits, grace_s))
        thread = threading.Thread(target=made.run_on, args=(listener, begun.set, lambda: None), daemon=True)
        thread.start()
        assert begun.wait(10)
        yield place
        made.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def quick() -> Iterator[Place]:
    with server(grace_s=0.1) as place:
        yield place


@pytest.mark.slow
@pytest.mark.parametrize(
    "begun",
    [
        b"GET",
        b"GET / HTTP/1.1\r\nhost: x\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n1234",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\n12",
        GET + b"GET / HT",
    ],
)
def test_a_request_that_does_not_arrive_in_time_is_answered_408(quick: Place, begun: bytes) -> None:
    said = quick.raw(begun)
    last = said[said.rindex(b"HTTP/1.1 ") :]
    assert status_of(last) == 408
    assert b'"kind":"slow"' in last
    assert b"connection: close" in last.lower()


@pytest.mark.slow
def test_a_connection_on_which_nothing_is_asked_ends_without_a_word(quick: Place) -> None:
    assert quick.raw() == b""


@pytest.mark.slow
@pytest.mark.parametrize("head", [b"", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"])
def test_a_byte_now_and_then_gives_no_more_time(quick: Place, head: bytes) -> None:
    with quick.connect() as connection:
        connection.sendall(head)
        connection.settimeout(0.02)
        said = b""
        for _ in range(500):  # ten seconds, if nobody ends it
            try:
                connection.sendall(b"x")
                piece = connection.recv(4096)
            except TimeoutError:
                continue
            except OSError:
                break
            said += piece
            if not piece:
                break
        else:
            pytest.fail("the connection was never ended")
    assert status_of(said) in (408, 0)  # 0: what was sent after the end had the answer thrown away


def test_a_request_in_pieces_is_answered_if_it_is_there_in_time(quick: Place) -> None:
    head, body = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 4\r\n\r\n", b"1234"
    said = quick.raw(*(bytes([each]) for each in head + body))
    assert said.endswith(b"POST 4")


@pytest.mark.slow
def test_work_may_take_longer_than_the_request_did(quick: Place) -> None:
    with quick.connect() as connection:
        connection.sendall(b"GET /for-ever HTTP/1.1\r\nhost: x\r\n\r\n")
        connection.settimeout(2 * QUICK.receive_s)
        with pytest.raises(TimeoutError):
            connection.recv(1)


@pytest.mark.slow
def test_a_client_that_never_reads_is_let_go_of(quick: Place) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((quick.host, quick.port))
        connection.settimeout(10)
        connection.sendall(b"GET /much HTTP/1.1\r\nhost: x\r\n\r\n")
        wait_until(lambda: _is_reset(connection), "the connection is reset")
        assert len(read_all(connection)) < MUCH


def _is_reset(connection: socket.socket) -> bool:
    try:
        connection.send(b"x")
    except OSError:
        return True
    return False


@pytest.mark.slow
def test_requests_in_a_row_are_answered_in_their_order(quick: Place) -> None:
    post = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"
    said = quick.raw(GET + post + GET)
    assert [each.rpartition(b"\r\n\r\n")[2] for each in said.split(b"HTTP/1.1 200 OK")[1:]] == [
        b"GET 0",
        b"POST 3",
        b"GET 0",
    ]


@pytest.mark.slow
def test_head_is_answered_as_get_without_a_body(quick: Place) -> None:
    said = quick.raw(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n" + GET)
    assert said.count(b"HTTP/1.1 200 OK") == 2
    assert said.count(b"GET 0") == 1
    assert said.count(b"content-length: 5") == 2


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\nbad name: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: a\x00b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * (1 << 17) + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x: a\r\n" * (1 << 14) + b"\r\n", 431),
    ],
)
def test_what_is_no_http_is_answered_with_an_error_in_json(quick: Place, sent: bytes, status: int) -> None:
    said = quick.raw(sent)
    assert status_of(said) in (status, 0)  # 0: more came than was read, so that the answer was thrown away
    if said:
        assert b'{"error":{"kind":' in said
        assert b"Traceback" not in said


def test_where_two_headers_say_where_a_request_ends_nothing_after_it_is_read(quick: Place) -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n"
    said = quick.raw(head + b"0\r\n\r\n" + GET)
    assert status_of(said) == 400
    assert said.count(b"HTTP/1.1 ") == 1
    assert b"GET 0" not in said


@pytest.mark.parametrize(
    ("files", "connections", "idle"),
    [(resource.RLIM_INFINITY, 512, 256), (1024, 512, 256), (256, 128, 64), (100, 50, 25)],
)
def test_half_of_the_files_that_may_be_open_are_left_for_the_work(
    monkeypatch: pytest.MonkeyPatch, files: int, connections: int, idle: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    limits = Limits.of_process()
    assert (limits.connections, limits.idle) == (connections, idle)


@pytest.mark.slow
def test_an_idle_connection_makes_room_for_another_one() -> None:
    limits = dataclasses.replace(QUICK, receive_s=20.0, idle_s=20.0, idle=3)
    with server(limits) as place, ExitStack() as stack:
        resting = [stack.enter_context(place.connect()) for _ in range(3)]
        resting[0].sendall(b"GET / HTT")  # a slow one is as idle as one that says nothing
        assert place.ask("GET", "/").text == "GET 0"
        assert resting[0].recv(1) == b""
        resting[2].sendall(GET)
        assert status_of(resting[2].recv(4096)) == 200


@pytest.mark.slow
def test_when_all_connections_are_at_work_another_one_is_told_so() -> None:
    limits = dataclasses.replace(QUICK, connections=3)
    with server(limits, grace_s=0.1) as place, ExitStack() as stack:
        for _ in range(3):
            busy = stack.enter_context(place.connect())
            busy.sendall(b"GET /for-ever HTTP/1.1\r\nhost: x\r\n\r\n")
            busy.settimeout(0.05)
            with pytest.raises(TimeoutError):
                busy.recv(1)
        said = place.raw()
        assert status_of(said) == 503
        assert b"too many connections" in said


@pytest.mark.slow
def test_two_hundred_slow_clients_do_not_keep_a_quick_one_waiting() -> None:
    limits = dataclasses.replace(QUICK, receive_s=20.0, connections=100, idle=50)
    with server(limits) as place, ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(place.connect()).sendall(b"POST / HTTP/1.1\r\nhost: x\r\n")
        assert place.ask("POST", "/", content=b"abc").text == "POST 3"


@pytest.mark.slow
def test_bodies_that_do_not_come_keep_nobody_out_however_many_there_are() -> None:
    limits = dataclasses.replace(QUICK, receive_s=20.0, connections=40, idle=20)
    begun = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n1"
    with server(limits, grace_s=0.1) as place, ExitStack() as stack:
        oldest = stack.enter_context(place.connect())
        oldest.sendall(begun)
        for number in range(100):
            stack.enter_context(place.connect()).sendall(begun)
            if number == 5:
                oldest.sendall(b"2")  # a byte now and then does not make it a new one
        assert place.ask("POST", "/", content=b"abc").text == "POST 3"
        wait_until(lambda: _is_reset(oldest), "the oldest one is ended")


@pytest.mark.slow
def test_a_request_that_is_arriving_when_the_service_stops_is_finished() -> None:
    limits = dataclasses.replace(QUICK, receive_s=20.0, last_receive_s=5.0)
    with server(limits) as place:
        connection = place.connect()
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n12")
        assert place.ask("GET", "/").text == "GET 0"  # so the other one has been taken in, too
        stopping = threading.Timer(0.3, connection.sendall, (b"34",))
        stopping.start()
    assert read_all(connection).endswith(b"POST 4")
    stopping.join()
    connection.close()


@pytest.mark.slow
def test_a_request_that_does_not_arrive_keeps_the_service_from_stopping_for_a_moment_only() -> None:
    limits = dataclasses.replace(QUICK, receive_s=60.0)
    with server(limits, grace_s=60.0) as place:
        connection = place.connect()
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n12")
        assert place.ask("GET", "/").text == "GET 0"
    assert status_of(read_all(connection)) == 408
    connection.close()
