"""The whole service for tests, on a thread of this process or in one of its own; and clients that behave badly."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson

from everturn.service.serving import Service
from everturn.service.web.listening import listen
from everturn.service.web.protocol import Limits
from everturn.settings import Settings
from forges.senders import SECRET, Sender, Webhook
from polling import wait_until

ADMIN_TOKEN = "an-admin-token-for-tests"
READ_TOKEN = "a-read-token-for-tests"
WAIT_S = 20.0
ALL_SECRETS: dict[str, str] = dict.fromkeys(("github", "gitea", "forgejo", "gitlab"), SECRET)


def settings_at(folder: Path, **given: Any) -> Settings:
    """Settings of a service that keeps everything below a folder."""
    usual = {"state": folder / "state", "serve_port": 0, "webhook_secrets": ALL_SECRETS, "admin_token": ADMIN_TOKEN}
    return Settings.load(**{**usual, **given})


@dataclass(frozen=True)
class Place:
    """Where a service is reached."""

    address: str
    host: str = "127.0.0.1"
    port: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "port", int(self.address.rpartition(":")[2]))

    def client(self, **given: Any) -> httpx.Client:
        # It is plain HTTP: reading all certificates that a machine trusts takes longer than most requests.
        return httpx.Client(base_url=self.address, trust_env=False, verify=False, timeout=WAIT_S, **given)

    def ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        with self.client() as client:
            return client.request(method, path, **given)

    def admin(self, path: str, body: dict[str, Any] | None = None, token: str = ADMIN_TOKEN) -> httpx.Response:
        return self.ask("POST", path, json=body or {}, headers={"authorization": f"Bearer {token}"})

    def send(self, sender: Sender, webhook: Webhook, delivery_id: str = "d-1") -> httpx.Response:
        headers, body = sender.send(webhook, delivery_id=delivery_id)
        return self.ask("POST", f"/webhooks/{sender.name}", headers=headers, content=body)

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=WAIT_S)

    def raw(self, *pieces: bytes) -> bytes:
        """Send bytes as they are, and return all that comes until the service closes the connection."""
        with self.connect() as connection:
            for piece in pieces:
                connection.sendall(piece)
            return read_all(connection)


@dataclass(frozen=True)
class Running(Place):
    """A service on a thread of this process."""

    service: Service | None = None


@contextmanager
def running(settings: Settings, limits: Limits | None = None) -> Iterator[Running]:
    """The whole service, as `everturn serve` has it, but for the signals."""
    told: list[str] = []
    with listen(settings.serve_host, settings.serve_port) as listener:
        service = Service(settings, listener, limits or Limits())
        thread = threading.Thread(target=service.run, args=(told.append,), daemon=True)
        thread.start()
        try:
            wait_until(lambda: told, "the service takes connections")
            yield Running(told[0], service=service)
        finally:
            service.stop()
            thread.join(WAIT_S)
            assert not thread.is_alive(), "the service did not stop"


@dataclass(frozen=True)
class Process(Place):
    """A service in a process of its own."""

    process: subprocess.Popen[bytes] = field(kw_only=True)
    log: Path = field(kw_only=True)

    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.log.read_bytes().splitlines()]

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines()]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)


def environment(folder: Path, **settings: Any) -> dict[str, str]:
    """What a service in a process of its own has for an environment: nothing but its settings."""
    usual = {"state": folder / "state", "webhook_secrets": ALL_SECRETS, "admin_token": ADMIN_TOKEN}
    texts = {
        f"EVERTURN_{name.upper()}": json.dumps(value) if isinstance(value, dict | list) else str(value)
        for name, value in {**usual, **settings}.items()
    }
    return {"PATH": os.environ["PATH"], "HOME": str(folder), **texts}


@contextmanager
def process(folder: Path, *options: str, **settings: Any) -> Iterator[Process]:
    """`everturn serve` in a process of its own, on any port unless the options say which."""
    log = folder / "service.log"
    port = () if "--port" in options else ("--port", "0")
    with log.open("ab") as errors:
        child = subprocess.Popen(
            [Path(sys.executable).with_name("everturn"), "serve", "--json", *port, *options],
            env=environment(folder, **settings),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    with child:
        try:
            assert child.stdout is not None
            said = child.stdout.readline()
            assert said, log.read_text()
            yield Process(orjson.loads(said)["address"], process=child, log=log)
        finally:
            child.kill()


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes, or resets, the connection."""
    pieces = []
    try:
        while piece := connection.recv(65536):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def status_of(answer: bytes) -> int:
    """Return the status of an answer as it came; 0 if there is none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def error_of(answer: httpx.Response) -> dict[str, str]:
    """Return what an answer says is wrong, in the one shape that there is."""
    body = answer.json()
    assert body.keys() == {"error"}, body
    found: dict[str, str] = body["error"]
    assert found.keys() == {"kind", "message", "hint"}
    return found
