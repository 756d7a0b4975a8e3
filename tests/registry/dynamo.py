"""A real server of DynamoDB on loopback whose clock is turned by hand, and which can be made to misbehave."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cached_property
from itertools import count
from typing import Any

import pytest

from everturn.clock import Clock, ManualClock
from everturn.model import Claim, SessionAges
from everturn.registry import DynamoDbRegistry, Registry
from everturn.registry.table import client_maker
from everturn.settings import Settings
from everturn.testing import LoopbackS3
from registry.places import AGES, OTHER, START_S, TTL_S, WORK, claim

Start = Callable[..., Any]
Trouble = Callable[[Any, dict[str, Any], Start], Iterable[bytes]]

_numbers = count(1)  # moto keeps its tables by process, not by server


def lose_answer(app: Any, request: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Do what was asked, and hang up without a word."""
    list(app(request, start))
    request["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return []


def hang_up(_app: Any, request: dict[str, Any], _start: Start) -> Iterable[bytes]:
    """Do nothing, and hang up."""
    request["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return []


def refusing(status: str, code: str, message: str = "") -> Trouble:
    """Do nothing, and answer with an error."""

    def refuse(_app: Any, request: dict[str, Any], start: Start) -> Iterable[bytes]:
        request["wsgi.input"].read(int(request.get("CONTENT_LENGTH") or 0))
        body = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message}).encode()
        start(status, [("Content-Type", "application/x-amz-json-1.0"), ("Content-Length", str(len(body)))])
        return [body]

    return refuse


THROTTLED = refusing("400 Bad Request", "ProvisionedThroughputExceededException", "slow down")
BROKEN = refusing("500 Internal Server Error", "InternalServerError", "oh")


class Dynamo:
    """WSGI middleware around moto: one request after the other, as moto's writes are not atomic between threads.

    Attributes:
        time: Tells the server's time of day; the real one if it is `None`.
        asked: The operations that were asked for.
        troubles: They hit the next requests, one each.
        on: The same for the next requests of one operation.
    """

    def __init__(self) -> None:
        self.url = ""
        self.reset(None)
        self._turn = threading.Lock()
        self._app: Any = None

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[Dynamo]:
        dynamo = cls()
        with LoopbackS3.start(wrap=dynamo.wrap) as server:
            dynamo.url = server.url
            yield dynamo

    def wrap(self, app: Any) -> Any:
        self._app = app
        return self._answer

    def reset(self, time: Callable[[], float] | None) -> None:
        """Be well again."""
        self.time = time
        self.asked: list[str] = []
        self.troubles: list[Trouble] = []
        self.on: dict[str, list[Trouble]] = {}

    @property
    def settings(self) -> Settings:
        """Settings that lead here, as those of a file would."""
        return Settings.load(aws_endpoint_url=self.url, aws_region="us-east-1")

    @cached_property
    def client(self) -> Any:
        """A client for all registries of these tests, as it takes long to make one. It hears the server's time."""
        made = client_maker(None, self.settings)()
        made.meta.events.register("after-call.dynamodb", self._tell_time)
        return made

    def _tell_time(self, parsed: dict[str, Any], **_: Any) -> None:
        if self.time is not None:
            parsed["ResponseMetadata"]["HTTPHeaders"]["date"] = formatdate(self.time(), usegmt=True)

    def _answer(self, request: dict[str, Any], start: Start) -> Iterable[bytes]:
        operation = request.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        with self._turn:
            self.asked.append(operation)
            troubles = self.on.get(operation) or self.troubles
            if troubles:
                return list(troubles.pop(0)(self._app, request, start))
            return list(self._app(request, start))


@dataclass
class DynamoPlace:
    """A table of its own. The server's clock goes on as the workers' does, and does not jump."""

    dynamo: Dynamo
    clock: ManualClock = field(default_factory=lambda: ManualClock(START_S))
    table: str = field(default_factory=lambda: f"registry-{next(_numbers)}")

    def __post_init__(self) -> None:
        self.dynamo.reset(self.clock.elapsed)
        self.connect().create_table()
        self.dynamo.asked.clear()

    def connect(self, ages: SessionAges = AGES, clock: Clock | None = None) -> DynamoDbRegistry:
        return DynamoDbRegistry(self.table, client=self.dynamo.client, ages=ages, clock=clock or self.clock)


def asked(place: DynamoPlace) -> list[str]:
    """What was asked for since the last look."""
    found, place.dynamo.asked = place.dynamo.asked, []
    return found


ACTS: dict[str, Callable[[Registry, Claim], object]] = {
    "claim": lambda registry, _: claim(registry, "w2", work=OTHER),
    "renew": lambda registry, made: registry.renew(made, TTL_S),
    "release": lambda registry, made: registry.release(made),
    "begin_anew": lambda registry, made: registry.begin_anew(made),
    "confirm": lambda registry, made: registry.confirm(made, "/srv"),
    "taint": lambda registry, made: registry.taint(made, "3 entries are missing"),
    "drop": lambda registry, made: registry.drop(WORK, made.session_id, "gone"),
}
SLOW = pytest.mark.slow
