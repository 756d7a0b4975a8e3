"""Python, the SDK, the agent command, git: is everything there that a run starts?"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import claude_agent_sdk

from everturn.checks.findings import Finding, failed, passed, warned
from everturn.errors import NotFound
from everturn.git.runner import Git
from everturn.host.agents import find_cli

NEEDED_PYTHON = (3, 11)
TESTED_SDK = (0, 2, 184)
TESTED_AGENT = (2, 1, 327)
NEEDED_AGENT = (2, 0, 0)
NEEDED_GIT = (2, 32)  # the first that reads no configuration of the user if it is told so
GIT_TIMEOUT_S = 15.0
PAUSE_S = 0.1
AGENT_TIMEOUT_S = 30.0  # a large program, from a cold disk

Version = tuple[int, ...]

_VERSION = re.compile(r"(?<![\w.])(\d+(?:\.\d+)+)")
_LENGTH = 4096
_KEPT = ("PATH", "TMPDIR", "LANG", "SYSTEMROOT")
_LOGINS = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
)


def python(running: Version = tuple(sys.version_info[:3])) -> Iterator[Finding]:
    """Look at the Python that runs this."""
    if running < NEEDED_PYTHON:
        yield failed(
            "programs.python", f"{dotted(running)} is too old", f"use Python {dotted(NEEDED_PYTHON)} or newer"
        )
    else:
        yield passed("programs.python", f"{dotted(running)} at {sys.executable}")


def sdk(installed: str = claude_agent_sdk.__version__) -> Iterator[Finding]:
    """Look at the agent SDK."""
    version = version_in(installed)
    if version is None or version < TESTED_SDK:
        yield warned(
            "programs.sdk",
            f"claude-agent-sdk {installed} is older than {dotted(TESTED_SDK)}, which this release is tested with",
            f"pip install 'claude-agent-sdk>={dotted(TESTED_SDK)}'",
        )
    else:
        yield passed("programs.sdk", f"claude-agent-sdk {installed}")


def agent(
    environment: Mapping[str, str],
    stop: threading.Event,
    command: Path | None = None,
    timeout_s: float = AGENT_TIMEOUT_S,
) -> Iterator[Finding]:
    """Look at the agent command.

    Args:
        environment: The variables of this process.
        stop: Once it is set, the command is ended within a moment.
        command: Where it is; the one that runs start if not given.
        timeout_s: How long it may take to tell its version.
    """
    name = "programs.agent"
    mend = "install the wheel of claude-agent-sdk for this platform, which brings it, or put claude on the PATH"
    command = command or find_cli(None)
    try:
        output = _version_told_by(command, environment, stop, timeout_s)
    except OSError as error:
        yield failed(name, f"{command} cannot be started: {error.strerror}", mend)
        return
    version = None if output is None else version_in(output)
    if output is None:
        yield failed(name, f"{command} --version did not end within {timeout_s:g} s", mend)
    elif version is None:
        yield failed(name, f"{command} --version does not tell a version: {_short(output)!r}", mend)
    elif version < TESTED_AGENT:
        old = f"{dotted(version)} at {command} is older than"
        if version < NEEDED_AGENT:
            yield failed(name, f"{old} {dotted(NEEDED_AGENT)}, which the SDK needs", mend)
        else:
            yield warned(name, f"{old} {dotted(TESTED_AGENT)}, which this release is tested with", mend)
    else:
        yield passed(name, f"{dotted(version)} at {command}")


def login(environment: Mapping[str, str], folder: Path) -> Iterator[Finding]:
    """Look whether the agent command finds credentials for the model. What they are is not looked at.

    Args:
        environment: The variables of this process.
        folder: Where the agent command keeps its settings.
    """
    name = "programs.login"
    given = [variable for variable in _LOGINS if environment.get(variable)]
    if given:
        yield passed(name, f"by {given[0]}")
    elif (folder / ".credentials.json").exists():
        yield passed(name, f"by {folder / '.credentials.json'}")
    else:
        yield warned(
            name,
            "no credentials for the model were found",
            "set ANTHROPIC_API_KEY, or log in with claude; a key helper or a keychain is fine, too",
        )


def git(environment: Mapping[str, str], stop: threading.Event) -> Iterator[Finding]:
    """Look at git, run as a run does.

    Args:
        environment: The variables of this process.
        stop: Once it is set, git is ended within a moment.
    """
    name = "programs.git"
    try:
        output = Git(environment, GIT_TIMEOUT_S).run(["version"], Path("/"), stop)
    except NotFound as error:
        yield failed(name, error.message, error.hint)
        return
    version = version_in(output)
    if version is None:
        yield failed(name, f"git version does not tell one: {_short(output)!r}", "install git anew")
    elif version < NEEDED_GIT:
        yield failed(name, f"{dotted(version)} is too old", f"install git {dotted(NEEDED_GIT)} or newer")
    else:
        yield passed(name, dotted(version))


def version_in(text: str) -> Version | None:
    """Return the first version number in a text."""
    found = _VERSION.search(text)
    return tuple(int(piece) for piece in found[1].split(".")) if found else None


def dotted(version: Version) -> str:
    """Return a version as it is written."""
    return ".".join(map(str, version))


def _version_told_by(
    command: Path, environment: Mapping[str, str], stop: threading.Event, timeout_s: float
) -> str | None:
    """Return what a program prints when asked for its version; `None` if it does not end. Nothing of it is left."""
    with TemporaryDirectory(prefix="everturn-doctor-", ignore_cleanup_errors=True) as home:
        kept = {name: environment[name] for name in _KEPT if name in environment}
        process = subprocess.Popen(
            [command, "--version"],
            cwd=home,
            env={**kept, "HOME": home, "DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        with process, _watched(process, stop, timeout_s) as late:
            assert process.stdout is not None
            output = process.stdout.read(_LENGTH)  # no more: it may print for ever
            if len(output) == _LENGTH:
                _kill(process)
            process.wait()
    return None if late.is_set() else output.decode(errors="replace")


@contextmanager
def _watched(process: subprocess.Popen[bytes], stop: threading.Event, timeout_s: float) -> Iterator[threading.Event]:
    """Kill a process that takes too long, or once it is no longer wanted. Yields an event that tells if it was."""
    done, late = threading.Event(), threading.Event()

    def watch() -> None:
        left_s = timeout_s
        while left_s > 0 and not stop.is_set():
            if done.wait(PAUSE_S):
                return
            left_s -= PAUSE_S
        late.set()
        _kill(process)

    watcher = threading.Thread(target=watch, name="check-watcher", daemon=True)
    watcher.start()
    try:
        yield late
    finally:
        done.set()
        watcher.join()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and those that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _short(text: str) -> str:
    return text.strip()[:60]
