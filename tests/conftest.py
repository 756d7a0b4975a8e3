"""What tests share: real stores on this machine, and settings that no environment reaches into."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import hypothesis
import pytest

from everturn.settings import Settings
from everturn.testing import LoopbackS3
from polling import Started, children
from support import StorePlace

# How long an example takes says how busy the machine is, not that something is wrong.
hypothesis.settings.register_profile(
    "everturn", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("everturn")
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("everturn"), max_examples=20)

# A test sees only what it sets itself: nobody's credentials, settings or agent configuration.
KEPT_VARIABLES = {"PATH", "TMPDIR", "LANG", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_TESTRUNUID"}


def pytest_configure() -> None:
    """Have the programs that tests start die by signals, whoever has started the tests.

    Under `nohup`, or in the background of a script, signals are ignored, and children inherit that. They do not
    inherit a handler; one that does nothing keeps this process as it was.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_collection_finish() -> None:
    """Leave what thousands of collected tests are made of out of every later search for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in set(os.environ) - KEPT_VARIABLES:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def started() -> Started:
    """Tell which processes the test has started that are alive. Servers that it shares with other tests are older."""
    return partial(children, children())


@pytest.fixture(scope="session")
def s3_server() -> Iterator[LoopbackS3]:
    with LoopbackS3.start() as server:
        yield server


@pytest.fixture
def s3_place(s3_server: LoopbackS3, monkeypatch: pytest.MonkeyPatch) -> StorePlace:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return StorePlace(f"s3://{s3_server.fresh_bucket()}/some/prefix", Settings.load())


@pytest.fixture
def file_place(tmp_path: Path) -> StorePlace:
    return StorePlace((tmp_path / "store").as_uri(), Settings.load())


@pytest.fixture
def memory_place() -> StorePlace:
    return StorePlace("memory://", Settings.load())


@pytest.fixture(params=["file", "memory", "s3"])
def place(request: pytest.FixtureRequest) -> StorePlace:
    """Each kind of store in turn."""
    found: StorePlace = request.getfixturevalue(f"{request.param}_place")
    return found
