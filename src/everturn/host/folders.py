"""Run folders: what a run keeps on its machine while it lasts, and what it leaves there when its worker dies.

`<root>/<run_id>/` holds the lock that says whether the run is alive, notes about it, what the guard of its agent
needs, and at its end the agent's local transcript. The kernel frees the lock when its process dies, however that
happens.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everturn.clock import Clock
from everturn.errors import Conflict, EverturnError, Invalid, Unavailable
from everturn.host import guard
from everturn.host.agents import Marker, end_processes, find_processes, is_guard
from everturn.settings import RUN_MARKER

LOCK_TIMEOUT_S = 5.0
PAUSE_S = 0.01

_LIFE = "lock"  # held by the run itself
_CARE = "care"  # held by whoever looks after what a dead run left
_NOTES = "run.json"
_AGENT = "agent.json"
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,127}")

Lock = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class AgentProcess:
    """What the guard of a run's agent has noted.

    Attributes:
        pid: The guard's process.
        started: When that was started, as the system writes it.
        cli_pid: The agent command's process; `None` until it is started.
        config_dir: The agent command's folder of settings and sessions. That of a resumed session is a temporary one.
        temporary: Where the worker's temporary files are.
        cwd: Where the agent works.
        session_id: The conversation.
        ended: Why everything was ended: `exit`, `worker`, `lease`, `signal`, `not_started`, `error`; `None` if the
            guard has not come so far.
        code: The exit code of the agent command, 128 + n for a signal n; `None` until it has ended.
        kept: Whether the transcript was kept.
    """

    pid: int
    started: str
    cli_pid: int | None
    config_dir: Path
    temporary: Path
    cwd: Path
    session_id: str
    ended: str | None
    code: int | None
    kept: bool

    @property
    def is_alive(self) -> bool:
        """Whether the guard is still there, and with it perhaps the agent."""
        return guard.is_same(guard.Process(self.pid, 0, 0, self.started)) and is_guard(self.pid)

    def find(self) -> dict[int, guard.Process]:
        """Return the guard and what is below it, as far as it is alive, by their ids."""
        table = guard.processes()
        if self.pid not in table or not self.is_alive:
            return {}
        return {self.pid: table[self.pid], **guard.below(table, [self.pid])}


class RunFolder:
    """The folder of a run, locked by this process. Made by `RunFolders`.

    Attributes:
        path: The folder.
        run_id: The run.
    """

    def __init__(self, path: Path, lock: int, clock: Clock) -> None:
        self.path = path
        self.run_id = path.name
        self._lock: int | None = lock
        self._clock = clock
        _open_folders.add(self)

    @property
    def facts(self) -> dict[str, Any]:
        """What was noted about the run; nothing if its worker died before it had noted anything."""
        return _read_json(self.path / _NOTES)

    def note(self, **facts: Any) -> None:
        """Note facts about the run, beside those that are there. On return whoever looks sees them."""
        with _told(self.path):
            guard.write_json(str(self.path / _NOTES), {**self.facts, **facts})

    @property
    def journal(self) -> Path:
        """The run's journal; there once the run has begun it."""
        return self.path / "journal.jsonl"

    def sync(self) -> None:
        """Return when the facts, and the names of the files that are here now, survive the machine's power."""
        with _told(self.path):
            for place in (self.path / _NOTES, self.path, self.path.parent):
                descriptor = os.open(place, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def extend_lease(self, until_elapsed_s: float) -> None:
        """Let the agent live until then. Without a lease it is not even started.

        Args:
            until_elapsed_s: The time, as `SystemClock.elapsed` counts it.
        """
        with _told(self.path):
            lease = os.open(self.path / "lease", os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(lease, guard.lease_text(until_elapsed_s), 0)
            finally:
                os.close(lease)

    def launcher(  # what to start, and what it is to know
        self,
        cli: Path,
        *,
        session_id: str,
        epoch: int,
        work: str = "",
        without: Sequence[str] = (),
        portable: bool = not guard.IS_LINUX,
    ) -> Path:
        """Write a program that starts an agent command under a guard.

        A run may have several agents, one after the other: `end_agent` ends the last one before the next begins.

        Args:
            cli: The agent command.
            session_id: The conversation.
            epoch: The claim's number.
            work: What tells the work item from others (`agents.mark_of`).
            without: Variables that the agent is not to see.
            portable: Use only what every system has. Less is found then; see docs/host.md.

        Returns:
            The program, for `ClaudeAgentOptions.cli_path`. It works for children of this process.

        Raises:
            Invalid: This interpreter cannot be started by its name, or the session id is none.
        """
        if not sys.executable:
            raise Invalid("this Python does not know where it is", hint="start it from a normal installation")
        _check_name("session id", session_id)
        config, program = self.path / "guard.json", self.path / "agent"
        ours = None if portable else guard.look_up(os.getpid())
        marker = f"{RUN_MARKER}={Marker(self.run_id, session_id, epoch, work)}"
        command = [sys.executable, "-I", "-S", guard.__file__, str(config)]
        unset = [f"unset {shlex.quote(name)}" for name in without]
        lines = ["#!/bin/sh", *unset, f"export {marker}", f'exec {shlex.join(command)} "$@"', ""]
        with _told(self.path):
            guard.write_json(
                str(config),
                {
                    "cli": str(cli),
                    "worker_pid": os.getpid(),
                    "worker_started": "" if ours is None else ours.started,
                    "lease": str(self.path / "lease"),
                    "notes": str(self.path / _AGENT),
                    "transcript": str(self.transcript),
                    "session_id": session_id,
                    "marker": marker,
                    "temporary": tempfile.gettempdir(),
                    "portable": portable,
                },
            )
            (self.path / _AGENT).unlink(missing_ok=True)  # that was the last one's
            program.write_bytes(os.fsencode("\n".join(lines)))
            program.chmod(0o700)
        return program

    @property
    def agent(self) -> AgentProcess | None:
        """What the guard has noted; `None` if none was started."""
        facts = _read_json(self.path / _AGENT)
        try:
            return AgentProcess(
                pid=facts["pid"],
                started=facts["started"],
                cli_pid=facts["cli_pid"],
                config_dir=Path(facts["config_dir"]),
                temporary=Path(facts["temporary"]),
                cwd=Path(facts["cwd"]),
                session_id=facts["session_id"],
                ended=facts.get("ended"),
                code=facts.get("code"),
                kept=facts.get("kept", False),
            )
        except (KeyError, TypeError):  # there is nothing, or another release has written it
            return None

    @property
    def transcript(self) -> Path:
        """The kept local transcript, laid out as in the agent command's folder of projects; there after `end_agent`,
        if the agent had written anything."""
        return self.path / "transcript"

    def end_agent(self, timeout_s: float) -> None:
        """End the agent and everything it has started, and keep its transcript. It need not have been started.

        When it returns, none of its processes is left on this host, as far as this system lets them be found.

        Args:
            timeout_s: How long that may take.

        Raises:
            Conflict: Something is still there after that time.
            Unavailable: The agent is gone, and its transcript could not be kept.
        """
        _, left = end_processes(self._find_processes, self._clock, timeout_s=timeout_s)
        if left:
            raise Conflict(
                f"the agent of run {self.run_id} does not end: process {min(left)} is still there",
                hint="end it, as its owner or as root",
            )
        self._rescue()

    def close(self, *, keep: bool = False) -> None:
        """Let go of the folder.

        Args:
            keep: Leave it there, for `RunFolders.leftovers` to find. Otherwise it is deleted.
        """
        if self._lock is None:
            return
        if not keep:
            _remove(self.path)
        fcntl.flock(self._lock, fcntl.LOCK_UN)  # a child that was just forked may have the descriptor for a moment
        self.forget()

    def forget(self) -> None:
        """Close the lock's descriptor. In a child made by `fork` the parent's lock stays."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _find_processes(self) -> dict[int, guard.Process]:
        agent = self.agent
        found = {} if agent is None else agent.find()
        if guard.IS_LINUX:
            found |= find_processes(lambda marker: marker.run_id == self.run_id)
        return found

    def _rescue(self) -> None:
        """Do what a guard that was killed has left undone."""
        agent = self.agent
        if agent is None:
            return
        if not agent.kept:
            try:
                with _told(self.path):
                    guard.keep_transcript(str(agent.config_dir), agent.session_id, str(self.transcript))
            except RecursionError:
                raise Unavailable(
                    f"the transcript of run {self.run_id} cannot be kept: folders lie too deep in {agent.config_dir}",
                    hint="the agent has made them; remove them, then run again",
                ) from None
        if self._is_leftover:
            guard.remove_resume_folder(str(agent.config_dir), str(agent.temporary))

    @property
    def _is_leftover(self) -> bool:
        return (self.path / _CARE).exists()


_open_folders: weakref.WeakSet[RunFolder] = weakref.WeakSet()


def _forget_all() -> None:
    for folder in list(_open_folders):
        folder.forget()


os.register_at_fork(after_in_child=_forget_all)


class RunFolders:
    """The folders of all runs on this machine.

    Args:
        root: Where they are; on a local disk, with locks that work and programs that may be started.
        clock: To wait by.
        lock: How files are locked; `fcntl.flock`.
    """

    def __init__(self, root: Path, *, clock: Clock, lock: Lock = fcntl.flock) -> None:
        self._root = root.absolute()
        self._clock = clock
        self._flock = lock

    def check(self) -> None:
        """Try out whether runs can have their folders here. Leaves nothing behind but the root.

        Raises:
            Invalid: They cannot.
        """
        hint = "put `state` on a local disk"
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._root, prefix=".check-") as folder:
                self._check_locks(Path(folder, _LIFE), hint)
                program = Path(folder, "program")
                program.write_text("#!/bin/sh\n")
                program.chmod(0o700)
                if not os.access(program, os.X_OK):
                    raise Invalid(
                        f"programs may not be started from {self._root}",
                        hint=f"{hint} that is not mounted with noexec",
                    )
        except OSError as error:
            raise Invalid(f"{self._root} cannot hold the folders of runs: {error.strerror}", hint=hint) from None

    def _check_locks(self, path: Path, hint: str) -> None:
        first, second = self._descriptor(path), self._descriptor(path)
        try:
            self._flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._try(second, fcntl.LOCK_EX):
                raise Invalid(f"locks do not hold in {self._root}", hint=hint)
        except OSError as error:
            raise Invalid(f"files cannot be locked in {self._root}: {error.strerror}", hint=hint) from None
        finally:
            os.close(first)
            os.close(second)

    def open(self, run_id: str) -> RunFolder:
        """Make the folder of a run, readable by this user only, and lock it for as long as this process lives.

        Raises:
            Invalid: The run's id is none, or the folder cannot be made.
            Conflict: The run has a folder already.
        """
        _check_name("run id", run_id)
        path = self._root / run_id
        with self._alone(), _told(self._root):
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:
                raise Conflict(f"run {run_id} has a folder already", hint="take a fresh id") from None
            lock = self._descriptor(path / _LIFE)
            self._flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return RunFolder(path, lock, self._clock)

    def is_dead(self, run_id: str) -> bool:
        """Tell whether a run of this machine has died: its folder is here, and no process that lives holds it."""
        _check_name("run id", run_id)
        return self._is_free(self._root / run_id)

    def leftovers(self) -> list[RunFolder]:
        """Return the folders of dead runs, locked by this process now, so that nobody else looks after them as well.

        Folders in which there is nothing yet are deleted; one with a journal is kept, though it may be nobody's.
        Those of other users, and those that cannot be locked now, are left alone.
        """
        if not self._root.is_dir():
            return []
        with self._alone():
            folders = [self._take_care(path) for path in sorted(self._root.iterdir()) if _NAME.fullmatch(path.name)]
        return [folder for folder in folders if folder is not None]

    def _take_care(self, path: Path) -> RunFolder | None:
        # Folders are made, and get their lock, where we are alone now: one without it will not get it any more.
        if not self._is_free(path) and os.path.lexists(path / _LIFE):
            return None
        try:
            lock = self._descriptor(path / _CARE)
        except OSError:
            return None
        if not self._try(lock, fcntl.LOCK_EX):
            os.close(lock)
            return None
        folder = RunFolder(path, lock, self._clock)
        if not folder.facts and folder.agent is None and not folder.journal.exists():
            folder.close()
            return None
        return folder

    def _is_free(self, path: Path) -> bool:
        try:
            lock = os.open(path / _LIFE, os.O_RDONLY)
        except OSError:
            return False
        try:
            return self._try(lock, fcntl.LOCK_SH)
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others of this machine from making folders, or looking for left ones, meanwhile."""
        with _told(self._root):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = self._descriptor(self._root / ".lock")
        try:
            deadline_s = self._clock.elapsed() + LOCK_TIMEOUT_S
            while not self._try(lock, fcntl.LOCK_EX):
                if self._clock.elapsed() > deadline_s:
                    raise Unavailable(f"{self._root} stays locked", hint="try again")
                self._clock.sleep(PAUSE_S)
            yield
        finally:
            with contextlib.suppress(OSError):
                self._flock(lock, fcntl.LOCK_UN)  # a child that was forked meanwhile has the descriptor, too
            os.close(lock)

    def _try(self, descriptor: int, kind: int) -> bool:
        try:
            self._flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _descriptor(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise Invalid(f"{name!r} is no {what}", hint="use letters, digits, - and _")


def _remove(path: Path) -> None:
    """Delete a run's folder, its locks last: should we die meanwhile, somebody else can take care of the rest."""
    with contextlib.suppress(OSError):
        for place in list(path.iterdir()):
            if place.name in (_LIFE, _CARE):
                continue
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place, ignore_errors=True)
            else:
                place.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say in our own words what the file system refuses."""
    try:
        yield
    except EverturnError:
        raise
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be written: {error.strerror}", hint="check that the disk is not full, and its permissions"
        ) from None
