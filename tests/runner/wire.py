"""What goes over the wire: a server of S3 and DynamoDB on loopback that notes what it is asked, in order."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from everturn.registry import DynamoDbRegistry
from everturn.settings import Settings
from everturn.testing import LoopbackS3
from polling import WAIT_S


class Wire:
    """WSGI middleware around moto, one request after the other.

    Attributes:
        asked: What was asked for, as `registry GetItem`, or `PUT homes`, `LIST sessions`, by the folder in the store.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._meeting: tuple[set[str], threading.Barrier] | None = None
        self._turn = threading.Lock()
        self._app: Any = None
        self._server: LoopbackS3 | None = None

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[Wire]:
        wire = cls()
        with LoopbackS3.start(wrap=wire._wrap) as server:
            wire._server = server
            yield wire

    def places(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        """Return the settings for a store and a registry that nobody else uses, and make AWS clients find them."""
        assert self._server is not None
        for name, value in self._server.environment.items():
            monkeypatch.setenv(name, value)
        # Agents are found on the whole host by their registry, and tests run in several processes.
        table = f"registry-of-runs-{uuid.uuid4()}"
        DynamoDbRegistry(table, settings=Settings.load()).create_table()
        store = f"s3://{self._server.fresh_bucket()}/agents"
        return {"store": store, "registry": f"dynamodb://{table}?region=us-east-1"}

    def hold_until_all_have_come(self, *names: str) -> None:
        """Answer the next requests of these names only when all of them have arrived."""
        self._meeting = (set(names), threading.Barrier(len(names), action=self._go_on, timeout=WAIT_S))

    def _go_on(self) -> None:
        self._meeting = None

    def _wrap(self, app: Any) -> Any:
        self._app = app
        return self._answer

    def _answer(self, request: dict[str, Any], start: Any) -> Iterable[bytes]:
        name, meeting = _named(request), self._meeting
        self.asked.append(name)
        if meeting is not None and name in meeting[0]:
            meeting[1].wait()
        with self._turn:
            return list(self._app(request, start))


def _named(request: dict[str, Any]) -> str:
    operation = request.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
    if operation:
        return f"registry {operation}"
    method, query = request["REQUEST_METHOD"], request.get("QUERY_STRING", "")
    key = request["PATH_INFO"].partition("/agents/")[2]
    listed = re.search(r"prefix=agents%2F(\w+)", query)
    return f"LIST {listed[1]}" if listed else f"{method} {key.partition('/')[0]}"
