"""What our own git is given, and what a worker that was killed has left behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from everturn.clock import Ids, ManualClock
from everturn.git.access import GitAccess
from everturn.git.credential_server import address_of
from everturn.git.credentials import Credentials


@pytest.fixture(params=["short", "long" * 30])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    made: Path = tmp_path / request.param
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def access(folder: Path) -> Iterator[GitAccess]:
    credentials = Credentials({"https://git.example": lambda _: "token"}, ManualClock())
    made = GitAccess(
        credentials, lambda _: (None, None), {}, folder, ca_file=None, clock=ManualClock(), ids=Ids(seed=1)
    )
    yield made
    made.close()


def listening(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    with address_of(path) as address:
        made.bind(address)
    made.listen(0)
    return made


def test_sockets_of_workers_that_were_killed_go_and_those_of_others_stay(access: GitAccess, folder: Path) -> None:
    listening(folder / "dead").close()
    with listening(folder / "alive"):
        access.online({})
        assert not os.path.lexists(folder / "dead")
        assert os.path.lexists(folder / "alive")


def test_a_worker_that_answers_nobody_any_more_keeps_nobody_waiting(access: GitAccess, folder: Path) -> None:
    with listening(folder / "stopped"), socket.socket(socket.AF_UNIX) as first, address_of(folder / "stopped") as at:
        first.connect(at)  # which fills its queue
        access.online({})
        assert os.path.lexists(folder / "stopped")
