"""The agents of this host: where their command is, which of their processes run, and the end of old ones."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from everturn.clock import Clock, SystemClock
from everturn.errors import Conflict, NotFound
from everturn.host import guard
from everturn.host.guard import Process
from everturn.settings import RUN_MARKER
from everturn.telemetry import Metrics, default_metrics, get_logger

PAUSE_S = 0.01
END_AGENTS_S = 5.0  # for processes to be gone after they were killed
_PREFIX = f"{RUN_MARKER}=".encode()
_EPOCH = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Marker:
    """Whose process it is: every process below an agent has this in its environment.

    Attributes:
        run_id: The run.
        session_id: The conversation.
        epoch: The claim's number.
        work: What tells the work item from those of all registries (`mark_of`); empty if nobody said.
    """

    run_id: str
    session_id: str
    epoch: int
    work: str = ""

    def __str__(self) -> str:
        return f"{self.run_id}:{self.session_id}:{self.epoch}:{self.work}"


def mark_of(registry: str, work_key: str) -> str:
    """Return what tells a work item from all others on a host, those of the same name in other registries too."""
    return hashlib.sha256(f"{registry}\0{work_key}".encode(errors="surrogatepass")).hexdigest()[:16]


def marker_of(pid: int) -> Marker | None:
    """Return whose process it is; `None` if it belongs to no agent, or its environment may not be seen."""
    for pair in guard.environment_of(pid):
        if pair.startswith(_PREFIX):
            pieces = pair.removeprefix(_PREFIX).decode(errors="replace").split(":")
            if len(pieces) not in (3, 4) or not _EPOCH.fullmatch(pieces[2]):
                return None  # whatever an agent has written there
            return Marker(pieces[0], pieces[1], int(pieces[2]), *pieces[3:])
    return None


def find_processes(wanted: Callable[[Marker], bool]) -> dict[int, Process]:
    """Return the processes whose marker is as wanted, their guards too, and whatever is below them; by their ids."""
    table = guard.processes()
    found = {}
    for pid, process in table.items():
        marker = marker_of(pid)
        if marker is not None and wanted(marker):
            found[pid] = process
    return {**found, **guard.below(table, found)}


def end_processes(
    find: Callable[[], dict[int, Process]], clock: Clock, *, timeout_s: float
) -> tuple[set[int], dict[int, Process]]:
    """End what there is to find: its guards are told to, so that they keep the transcripts; the rest is killed.

    Args:
        find: What there is now, at each call.
        clock: To wait by.
        timeout_s: How long that may take. Guards get half of it.

    Returns:
        The ids of what was there at first, and what is still there after that time.
    """
    deadline_s = clock.elapsed() + timeout_s
    first = found = find()
    for process in found.values():
        if is_guard(process.pid):
            guard.send(process, guard.END_NOW)
    while any(is_guard(pid) for pid in found) and clock.elapsed() < deadline_s - timeout_s / 2:
        clock.sleep(PAUSE_S)
        found = find()
    return set(first), guard.end_all(find, clock.sleep, max(deadline_s - clock.elapsed(), 0))


def is_guard(pid: int, *, portable: bool = not guard.IS_LINUX) -> bool:
    """Tell whether a process is the guard of an agent.

    Args:
        pid: Its id.
        portable: Ask `ps`.
    """
    if portable:
        done = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)  # noqa: S607
        return os.fsencode(guard.__file__) in done.stdout
    try:
        return os.fsencode(guard.__file__) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


class Agents:
    """The agents of this host.

    Args:
        clock: To wait by.
        metrics: Where ended processes are counted.
    """

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._log = get_logger()

    def end_old(
        self,
        session_id: str,
        epoch: int,
        *,
        work: str = "",
        timeout_s: float,
        confirm: Callable[[], object] | None = None,
    ) -> list[int]:
        """See `end_old_agents`."""

        def is_old(marker: Marker) -> bool:
            if marker.session_id == session_id:
                return marker.epoch < epoch
            return work != "" and marker.work == work

        if not guard.IS_LINUX:
            return []
        _refuse_to_end_ourselves(is_old, f"session {session_id}", "start the run outside of the agent")
        if confirm is not None and find_processes(is_old):
            confirm()
        ended, left = end_processes(lambda: find_processes(is_old), self._clock, timeout_s=timeout_s)
        if left:
            raise Conflict(
                f"an old agent of session {session_id} is still there: process {min(left)}",
                hint="end it, as its owner or as root, then run again",
            )
        if ended:
            self._metrics.old_agents.inc(len(ended))
            self._log.warning("old_agents_ended", session_id=session_id, epoch=epoch, pids=sorted(ended))
        return sorted(ended)


def end_old_agents(
    session_id: str,
    epoch: int,
    *,
    timeout_s: float,
    work: str = "",
    confirm: Callable[[], object] | None = None,
    clock: Clock | None = None,
    metrics: Metrics | None = None,
) -> list[int]:
    """End every process of this host that belongs to an agent of a session under an older claim.

    Agents of another session of the same work item are old, too: that session was given up.

    When it returns, none of them is left: the agent command, its tools, and its guard are gone. Guards keep the
    transcript first. Only on Linux can they be found; elsewhere nothing is done. Processes of other users whose
    environment may not be seen are not found either.

    Args:
        session_id: The session.
        epoch: The number of the new claim; processes of lower ones are ended.
        timeout_s: How long that may take.
        work: What tells the work item from others (`mark_of`); without it only those of the session are found.
        confirm: Called before anything is ended, to make sure that the claim is still ours: if we stood still for
            long, what is found may be the agent of a newer claim, whose number is no higher if the work item began
            anew. What it raises comes through, and nothing is ended.
        clock: To wait by; the system's.
        metrics: Where ended processes are counted; the default ones.

    Returns:
        The ids of the processes that were ended.

    Raises:
        Conflict: One of them is still there after that time, or has started this very process.
    """
    return Agents(clock or SystemClock(), metrics or default_metrics()).end_old(
        session_id, epoch, work=work, timeout_s=timeout_s, confirm=confirm
    )


def end_agents_of_run(run_id: str, *, timeout_s: float, clock: Clock | None = None) -> list[int]:
    """End every process of this host that belongs to an agent of a run that is over, or whose worker is dead.

    Args:
        run_id: The run.
        timeout_s: How long that may take.
        clock: To wait by; the system's.

    Returns:
        The ids of the processes that were ended.

    Raises:
        Conflict: One of them is still there after that time, or has started this very process.
    """

    def is_of_run(marker: Marker) -> bool:
        return marker.run_id == run_id

    if not guard.IS_LINUX:
        return []
    _refuse_to_end_ourselves(is_of_run, f"run {run_id}", "start it outside of the agent")
    ended, left = end_processes(lambda: find_processes(is_of_run), clock or SystemClock(), timeout_s=timeout_s)
    if left:
        raise Conflict(
            f"the agent of run {run_id} is still there: process {min(left)}",
            hint="end it, as its owner or as root, then run again",
        )
    return sorted(ended)


def _refuse_to_end_ourselves(wanted: Callable[[Marker], bool], whose: str, hint: str) -> None:
    own = marker_of(os.getpid())
    if own is not None and wanted(own):
        raise Conflict(f"this process was started by the agent of {whose} that it would have to end", hint=hint)


def find_cli(options_cli_path: str | Path | None) -> Path:
    """Return the agent command to start.

    Args:
        options_cli_path: The one that was asked for. By default it is the one that came with the SDK, else the one on
            the search path.

    Raises:
        NotFound: There is none.
    """
    if options_cli_path is not None:
        given = Path(options_cli_path)
        found = shutil.which(given) if given.parent == Path() else str(given) if given.is_file() else None
        if found is None:
            raise NotFound(f"there is no agent command {given}", hint="check the option cli_path")
        return Path(found).absolute()
    sdk = importlib.util.find_spec("claude_agent_sdk")
    for folder in (sdk.submodule_search_locations or []) if sdk is not None else []:
        bundled = Path(folder, "_bundled", "claude")
        if bundled.is_file():
            return bundled
    found = shutil.which("claude")
    if found is None:
        raise NotFound(
            "there is no agent command", hint="install a claude-agent-sdk wheel that brings it, or set cli_path"
        )
    return Path(found).absolute()
