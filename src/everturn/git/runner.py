"""The one place that runs git.

Repositories are written by strangers and by agents, so git runs without a shell, without their hooks and helpers,
without a terminal to ask on, and in a process group of its own that is killed as a whole when it takes too long.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from everturn.errors import Denied, EverturnError, Invalid, NotFound, Unavailable
from everturn.git.locks import Lock
from everturn.git.untrusted import readable

STOP_PAUSE_S = 0.1
NOWHERE = {"GIT_DIR": os.devnull}  # for what needs no repository: not even one that somebody has made in `/` counts
SSH = "ssh -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=30"

# Given by the environment, where it goes before every file. A protocol that is not named here is refused.
_HARDENED = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.attributesFile": os.devnull,
    "core.excludesFile": os.devnull,
    "core.alternateRefsCommand": ":",  # else git asks where it borrows from, and heeds what is configured there
    "core.useReplaceRefs": "false",  # nothing stands for something else
    "core.protectNTFS": "true",
    "core.protectHFS": "true",
    "protocol.allow": "never",
    "protocol.https.allow": "always",
    "protocol.http.allow": "always",
    "protocol.ssh.allow": "always",
    "protocol.git.allow": "always",
    "protocol.file.allow": "always",
    "http.followRedirects": "false",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "advice.detachedHead": "false",
}
# What is at work here alone reaches no other host, and starts no helper, whatever is configured where it works.
_OFFLINE = {
    "protocol.https.allow": "never",
    "protocol.http.allow": "never",
    "protocol.ssh.allow": "never",
    "protocol.git.allow": "never",
    "credential.helper": "",
}
_NOT_FOUND = ("does not exist", "not found", "does not appear to be a git repository", "Could not resolve host")
_MOVED = tuple(f"returned error: {status}" for status in (301, 302, 303, 307, 308))
_INVALID = ("not allowed", "invalid path")  # a protocol, or a name such as .GIT that is another one elsewhere
_DENIED = ("Authentication failed", "Permission denied", "could not read Username", "returned error: 403")
_FULL = ("No space left on device", "Disk quota exceeded")
# Not "out of memory": git says that of objects, too, that are damaged and seem to be huge.
_STARVED = (
    *_FULL,
    "Cannot allocate memory",
    "Resource temporarily unavailable",
    "Too many open files",
    "died of signal 9",
)
_COUNT = re.compile(r"[0-9]{1,9}")
_KILLED = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # by somebody; not by what it has read


class GaveUp(Unavailable):
    """git came to no end: it was killed, or the machine had not enough for it. That says nothing about the
    repository."""


class NoGit(NotFound):
    """There is no git. That says nothing about the repository either."""


INCONCLUSIVE = (GaveUp, NoGit)


class Git:
    """Runs git commands.

    The configuration of the machine and of the user is not read: an agent runs as the same user, and could have put
    there what git then starts.

    Args:
        environment: The variables of this process; git sees them without those that steer git itself.
        timeout_s: How long one command may take.
        config_file: A configuration to read in place of the machine's and the user's.
        credentials: Adds to an environment what git needs to get credentials.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        timeout_s: float,
        config_file: Path | None = None,
        credentials: Callable[[Mapping[str, str]], Mapping[str, str]] = dict,
    ) -> None:
        self._credentials = credentials
        kept = {name: value for name, value in environment.items() if not name.startswith("GIT_")}
        stalled = {"http.lowSpeedLimit": "1", "http.lowSpeedTime": str(int(timeout_s) or 1)}
        self._environment = with_config(
            {**_HARDENED, **stalled},  # a git that outlives us, with our locks, must not wait for a remote for ever
            {
                **kept,
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_CONFIG_GLOBAL": os.devnull if config_file is None else str(config_file),
                "GIT_TERMINAL_PROMPT": "0",
                "GIT_ASKPASS": "",
                "GIT_SSH_COMMAND": SSH,
                "GIT_OPTIONAL_LOCKS": "0",
                "GIT_ATTR_NOSYSTEM": "1",
                "GIT_PROXY_COMMAND": "",
                "LC_ALL": "C.UTF-8",
            },
        )
        self._offline = with_config(_OFFLINE, self._environment)
        self._timeout_s = timeout_s

    def online(self) -> dict[str, str]:
        """Return the environment of a git that may talk to remotes."""
        return dict(self._credentials(self._environment))

    def run(
        self,
        arguments: Sequence[str],
        cwd: Path,
        stop: threading.Event | None = None,
        *,
        online: bool = False,
        config: Mapping[str, str] | None = None,
        extra: Mapping[str, str] | None = None,
        text: str | BinaryIO | None = None,
        lock: Lock | None = None,
    ) -> str:
        """Run one command and return what it printed; bytes that are no UTF-8 as surrogates, as in `os.fsdecode`.

        Args:
            arguments: The command without `git`. Text from outside belongs behind `--end-of-options`.
            cwd: Where to run it.
            stop: Once it is set, git is killed within a moment.
            online: Whether it may talk to a remote, and so needs credentials.
            config: Configuration that goes before all other.
            extra: Variables on top of the others.
            text: What it reads, or a file with it; nothing if not given.
            lock: A lock that git holds with us, in case that it outlives us.

        Raises:
            NotFound: There is no such repository, or no git.
            Invalid: The repository is of a kind that git must not use.
            Denied: The remote wants credentials that git does not have.
            Unavailable: It failed in another way, or took too long.
        """
        base = self.online() if online else self._offline
        try:
            with _input(text) as told:
                process = subprocess.Popen(
                    ["git", *arguments],  # noqa: S607  # git is found on the PATH, as everywhere
                    cwd=cwd,
                    env=with_config(config or {}, {**base, **(extra or {})}),
                    stdin=told,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="surrogateescape",  # a file's name may be any bytes
                    start_new_session=True,
                    pass_fds=() if lock is None else (lock.descriptor,),
                )
        except OSError as error:
            raise _not_started(error, cwd) from None
        output, complaint = self._finish(process, arguments[0], stop or threading.Event())
        if -process.returncode in _KILLED:
            raise GaveUp(
                f"git {arguments[0]} was killed", hint="run it again; look whether the machine has enough memory"
            )
        if process.returncode:
            said = complaint.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            raise _shortage(arguments[0], said) or _failure(arguments[0], said)
        return output

    def _finish(self, process: subprocess.Popen[str], command: str, stop: threading.Event) -> tuple[str, str]:
        left_s = self._timeout_s
        with process:
            try:
                while True:
                    try:
                        return process.communicate(timeout=min(left_s, STOP_PAUSE_S))
                    except subprocess.TimeoutExpired:
                        left_s -= STOP_PAUSE_S
                    if stop.is_set():
                        raise GaveUp(f"git {command} was stopped", hint="run it again")
                    if left_s <= 0:
                        raise GaveUp(
                            f"git {command} took longer than {self._timeout_s:g} s",
                            hint="check that the remote can be reached, or raise git_timeout_s",
                        )
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)


def with_config(config: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which git has this configuration, behind what the environment gives it already.

    What comes later goes before what comes first, and all of it before every file.

    Raises:
        Invalid: What the environment gives it cannot be counted; git itself would refuse it.
    """
    said = environment.get("GIT_CONFIG_COUNT") or "0"
    if not _COUNT.fullmatch(said):
        raise Invalid(f"GIT_CONFIG_COUNT is {said[:20]!r}, which is no count", hint="set it to a number, or unset it")
    count = int(said)
    made = {**environment, "GIT_CONFIG_COUNT": str(count + len(config))}
    for number, (key, value) in enumerate(config.items(), count):
        made[f"GIT_CONFIG_KEY_{number}"] = key
        made[f"GIT_CONFIG_VALUE_{number}"] = value
    return made


@contextmanager
def _input(text: str | BinaryIO | None) -> Iterator[BinaryIO | int]:
    """Give what a command is to read. In a file: `communicate` with a timeout writes to a pipe only once."""
    if text is None:
        yield subprocess.DEVNULL
    elif not isinstance(text, str):
        yield text
    else:
        with TemporaryFile() as file:
            file.write(text.encode("utf-8", "surrogateescape"))
            file.seek(0)
            yield file


def _not_started(error: OSError, cwd: Path) -> EverturnError:
    if isinstance(error, FileNotFoundError) and cwd.is_dir():
        return NoGit("there is no git command", hint="install git, or put it on the PATH")
    text = f"git could not be started in {cwd}: {error.strerror}"
    return GaveUp(text, hint="check that the folder is there, and that git may be run")


def _shortage(command: str, complaint: str) -> GaveUp | None:
    """Return what the machine is short of; `None`: git failed for another reason."""
    said = next((line for line in complaint.splitlines() if any(sign in line for sign in _STARVED)), None)
    if said is None:
        return None
    what = "room on its disk" if any(sign in said for sign in _FULL) else "memory, processes or open files"
    return GaveUp(f"git {command} failed: {readable(said)}", hint=f"the machine is short of {what}")


def _failure(command: str, complaint: str) -> EverturnError:
    said = complaint.splitlines()
    ours = [line for line in said if line.startswith("everturn:")]  # why there are no credentials
    theirs = [line for line in said if line.startswith(("fatal:", "error:", "remote:"))]
    reason = (ours or theirs or said or ["no reason given"])[0]
    text = f"git {command} failed: {readable(reason)}"  # a remote may have said anything
    if "mismatched algorithms" in complaint:
        return Invalid(text, hint="its object ids are SHA-256; workdirs are for repositories with SHA-1 ids so far")
    if any(sign in complaint for sign in _INVALID):
        return Invalid(text, hint="git refuses it for safety; a repository is https://, ssh:// or a path")
    if any(sign in complaint for sign in _MOVED):
        return NotFound(text, hint="the repository has moved, and no redirect is followed: give its new URL")
    if any(sign in complaint for sign in _NOT_FOUND):
        return NotFound(text, hint="check the repository's name or path")
    if any(sign in complaint for sign in _DENIED):
        return Denied(text, hint="check the credentials that git uses for this remote")
    return Unavailable(text, hint="it is safe to try again")
