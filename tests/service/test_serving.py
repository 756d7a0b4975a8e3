"""The service as a process: how it begins, says where it is, ends, and dies."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from everturn.service.web.listening import address_of, listen
from forges.senders import GITHUB
from polling import wait_until
from served import Process, environment, process, read_all, status_of

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def refused(folder: Path, *options: str, **settings: object) -> str:
    """What `everturn serve` says when it cannot serve."""
    done = subprocess.run(
        [Path(sys.executable).with_name("everturn"), "serve", *options],
        env=environment(folder, **settings),
        cwd=folder,
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    return done.stderr


# --- Beginning


def test_it_says_where_it_is_and_is_ready_soon(folder: Path) -> None:
    with process(folder) as service:
        assert service.address.startswith("http://127.0.0.1:")
        assert service.ask("GET", "/healthz").json() == {"status": "ok"}
        wait_until(lambda: service.ask("GET", "/readyz").status_code == 200, "it is ready")
        assert service.ask("GET", "/").status_code == 200
        assert service.stop() == 0
        assert service.events()[0] == "service_started"
        assert service.events()[-2:] == ["service_stopping", "service_stopped"]


def test_for_people_it_says_so_in_words(folder: Path) -> None:
    child = subprocess.Popen(
        [Path(sys.executable).with_name("everturn"), "serve", "--port", "0"],
        env=environment(folder),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("Everturn serves on http://127.0.0.1:")
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 0


def test_a_port_that_is_taken_is_refused_in_one_sentence(folder: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        said = refused(folder, "--port", str(taken.getsockname()[1]))
    assert "somebody else listens on 127.0.0.1" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--host", "192.0.2.7"), "is no address of this machine"),
        (("--host", "no-such-host.invalid"), "is unknown"),
        (("--host", "a" * 300), "is unknown"),
        (("--port", "70000"), "serve_port"),
    ],
)
def test_a_place_that_there_is_not_is_refused_in_one_sentence(
    folder: Path, options: tuple[str, ...], words: str
) -> None:
    assert words in refused(folder, *options)


def test_a_setting_that_is_wrong_is_refused_and_never_shown(folder: Path) -> None:
    said = refused(folder, admin_token="hunter2")
    assert "admin_token" in said
    assert "hunter2" not in said


def test_listening_to_all_without_a_read_token_is_warned_of(folder: Path) -> None:
    with process(folder, "--host", "0.0.0.0") as service:
        assert service.lines()[0]["event"] == "service_open_to_all"
        assert service.stop() == 0
    (folder / "again").mkdir()
    with process(folder / "again", "--host", "0.0.0.0", read_token="a-read-token-for-tests") as service:
        assert service.stop() == 0
        assert "service_open_to_all" not in service.events()


# --- Ending


def test_streams_end_at_once_when_it_stops(folder: Path) -> None:
    with process(folder, shutdown_grace_s=20) as service, service.connect() as silent:
        with service.client() as client, client.stream("GET", "/live") as stream:
            assert stream.status_code == 200
            silent.sendall(b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n")  # one that never reads
            begun = time.monotonic()
            service.process.send_signal(signal.SIGTERM)
            try:
                for _ in stream.iter_raw():
                    pass
            except httpx.RemoteProtocolError:
                pass  # cut off in the middle
        assert service.process.wait(20) == 0
        assert time.monotonic() - begun < 5


def test_a_request_under_way_is_finished_before_it_stops(folder: Path) -> None:
    with process(folder) as service:
        headers, body = GITHUB.send(GITHUB.issue)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST /webhooks/github HTTP/1.1\r\nhost: localhost\r\n{lines}content-length: {len(body)}\r\n\r\n"
        with service.connect() as connection:
            connection.sendall(head.encode() + body[:10])
            service.ask("GET", "/healthz")
            service.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "service_stopping" in service.events(), "it stops")
            connection.sendall(body[10:])
            assert status_of(read_all(connection)) == 202
        assert service.process.wait(20) == 0
        with pytest.raises(OSError):  # noqa: PT011  # refused or reset
            service.connect()
    with process(folder) as service:
        assert service.send(GITHUB, GITHUB.issue, "another").status_code == 202
        headers, body = GITHUB.send(GITHUB.issue)
        assert service.ask("POST", "/webhooks/github", headers=headers, content=body).json()["status"] == "duplicate"


def test_a_second_signal_ends_it_at_once(folder: Path) -> None:
    with process(folder, shutdown_grace_s=60) as service, service.connect() as connection:
        connection.sendall(b"POST /webhooks/github HTTP/1.1\r\nhost: localhost\r\nx-hub-signature-256: x\r\n")
        connection.sendall(b"content-type: application/json\r\ncontent-length: 5\r\n\r\n")
        service.ask("GET", "/healthz")
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "service_stopping" in service.events(), "it stops")
        assert service.stop(signal.SIGTERM) == 128 + signal.SIGTERM


def test_after_a_kill_it_serves_again_at_the_same_port(folder: Path) -> None:
    with process(folder) as first:
        assert first.send(GITHUB, GITHUB.issue, "before").status_code == 202
        first.process.kill()
        first.process.wait(20)
        with process(folder, "--port", str(first.port)) as second:
            assert second.send(GITHUB, GITHUB.issue, "before").json()["status"] == "duplicate"
            assert second.stop() == 0


# --- Not usable


def test_a_logbook_that_cannot_be_used_is_told_and_the_process_lives(folder: Path) -> None:
    (folder / "state").mkdir()
    (folder / "state" / "logbook.db").mkdir()  # nobody can write a folder
    with process(folder) as service:
        assert _lacks(service, "logbook")
        assert service.ask("GET", "/healthz").status_code == 200
        assert service.send(GITHUB, GITHUB.issue).status_code == 503
        assert service.stop() == 0


def test_a_store_that_cannot_be_used_is_told(folder: Path) -> None:
    (folder / "store").mkdir()
    (folder / "store" / "format.json").write_text(json.dumps({"format": "another"}))
    with process(folder, store=(folder / "store").as_uri()) as service:
        assert _lacks(service, "store")
        assert service.stop() == 0


def _lacks(service: Process, part: str) -> bool:
    """Wait until there is no doubt about what cannot be used: it is this part, and no other."""

    def known() -> bool:
        answer = service.ask("GET", "/readyz")
        assert answer.status_code == 503
        return [each["part"] for each in answer.json()["lacks"]] == [part]

    return wait_until(known, f"it says that it cannot use the {part}")


# --- Where it listens


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


ADDRESSES = ["127.0.0.1", pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6"))]


@pytest.fixture(params=ADDRESSES)
def loopback(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with listen(request.param, 0) as listener:
        yield listener


def test_the_address_is_a_url(loopback: socket.socket) -> None:
    port = loopback.getsockname()[1]
    assert address_of(loopback) in (f"http://127.0.0.1:{port}", f"http://[::1]:{port}")
