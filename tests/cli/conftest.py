"""The real command, in a clean environment and a folder of its own."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cli.console import Console
from everturn.cli.app import _run
from everturn.telemetry import LOGGER_NAME
from everturn.testing import cli_environment, kill_machine
from journals import FIRST, SECOND, JournalStore, killed, resumed
from polling import processes_below

TIMEOUT_S = 60
NO_MODEL = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command that runs in the process of a test sets logging up there; that is taken back."""
    logger = logging.getLogger(LOGGER_NAME)
    before = (logger.handlers, logger.level, logger.propagate)
    yield
    logger.handlers, logger.level, logger.propagate = before


@dataclass
class Everturn:
    """The command as somebody at a machine of their own has it.

    Attributes:
        folder: Everything of this machine: `home`, `tmp`, the `desk` they sit at, and `state`.
        variables: Variables of the environment beyond those that every command needs.
    """

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home, self.tmp, self.desk, self.state = (self.folder / name for name in ("home", "tmp", "desk", "state"))
        for place in (self.home, self.tmp, self.desk):
            place.mkdir(parents=True)

    def __call__(self, *arguments: str | Path, model_url: str = NO_MODEL) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        with self.start(*arguments, model_url=model_url) as process:
            try:
                output, complaint = process.communicate(timeout=TIMEOUT_S)
            finally:
                if process.returncode is None:
                    kill_machine(process.pid)
        return subprocess.CompletedProcess(process.args, process.returncode, output, complaint)

    def start(self, *arguments: str | Path, model_url: str = NO_MODEL) -> subprocess.Popen[str]:
        """Start the command."""
        return subprocess.Popen(
            [Path(sys.executable).with_name("everturn"), *arguments],
            cwd=self.desk,
            env=self.environment(model_url),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def environment(self, model_url: str = NO_MODEL) -> dict[str, str]:
        """Return the whole environment of a command."""
        return {
            **cli_environment(model_url, self.home, tmpdir=self.tmp),
            "EVERTURN_STATE": str(self.state),
            **self.variables,
        }

    def files(self) -> dict[str, bytes]:
        """Return all files of the machine, but for the empty ones that are locked."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.suffix != ".lock"
        }

    def processes(self) -> list[int]:
        """Return the processes that were started here."""
        return processes_below(self.folder)

    def beside(self, name: str) -> Everturn:
        """Return another machine, which shares nothing with this one."""
        return Everturn(self.folder.with_name(name))


@dataclass
class EverturnHere(Everturn):
    """The same, run in the process of the test, which spares it a second of imports. It can start no agent.

    Attributes:
        capsys: Captures what it prints.
        patches: Lay its environment over that of the test while it runs.
    """

    capsys: pytest.CaptureFixture[str] = field(kw_only=True)
    patches: pytest.MonkeyPatch = field(kw_only=True)

    def __call__(self, *arguments: str | Path, model_url: str = NO_MODEL) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        self.capsys.readouterr()
        with self.patches.context() as patch:
            patch.chdir(self.desk)
            for name in os.environ:
                patch.delenv(name)
            for name, value in self.environment(model_url).items():
                patch.setenv(name, value)
            code = _run([str(each) for each in arguments])
        return subprocess.CompletedProcess(arguments, code, *self.capsys.readouterr())


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Everturn]:
    yield Everturn(tmp_path / "machine")
    for pid in processes_below(tmp_path):  # of a test that has failed
        kill_machine(pid)


@pytest.fixture
def everturn(installed: Everturn) -> Everturn:
    """The command as it is installed. A module whose tests start no agent may have `everturn_here` instead."""
    return installed


@pytest.fixture
def everturn_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> EverturnHere:
    return EverturnHere(tmp_path / "machine", capsys=capsys, patches=monkeypatch)


@pytest.fixture
def sessions(capsys: pytest.CaptureFixture[str]) -> Console:
    return Console(capsys)


@pytest.fixture
def store(tmp_path: Path) -> JournalStore:
    return JournalStore(tmp_path)


@pytest.fixture
def told(store: JournalStore) -> JournalStore:
    """A store with a run that was killed and the one that went on."""
    store.keep(FIRST, killed())
    store.keep(SECOND, resumed())
    return store
