"""The machine: its clock, its limits, and whether an agent can outlive its worker on it."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from everturn.checks.findings import Finding, failed, passed, warned
from everturn.checks.folders import LEAST_BYTES, scratch, space
from everturn.clock import Clock

SANE_AFTER_S = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
NEEDED_FILES = 256

_PR_GET_CHILD_SUBREAPER = 37


def wall_clock(clock: Clock) -> Iterator[Finding]:
    """Look whether the clock was ever set."""
    told = datetime.fromtimestamp(clock.now(), UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    if clock.now() < SANE_AFTER_S:
        yield failed("machine.clock", f"says {told}", "set it, and keep it right with NTP")
    else:
        yield passed("machine.clock", told)


def open_files(limit: int | None = None) -> Iterator[Finding]:
    """Look how many files a process may have open."""
    found = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if limit is None else limit
    endless = found == resource.RLIM_INFINITY
    shown = "as many as it likes" if endless else f"{found:,}"
    if not endless and found < NEEDED_FILES:
        yield warned("machine.files", f"a process may open only {shown}", f"ulimit -n {NEEDED_FILES * 4}, or more")
    else:
        yield passed("machine.files", f"a process may open {shown}")


def temporary() -> Iterator[Finding]:
    """Look at the folder for temporary files: a resumed transcript is put there for the agent to read."""
    place = Path(tempfile.gettempdir())
    with scratch(place) as folder:
        (folder / "probe").write_bytes(bytes(4096))
    room = space("machine.temporary", place, little=2 * LEAST_BYTES, least=LEAST_BYTES // 10)
    yield Finding(room.name, room.status, f"{place}: {room.message}", room.mend)


def user(environment: Mapping[str, str], uid: int | None = None) -> Iterator[Finding]:
    """Look who runs this."""
    name = "machine.user"
    uid = os.getuid() if uid is None else uid
    if uid:
        yield passed(name, f"user {uid}")
    elif environment.get("IS_SANDBOX"):
        yield passed(name, "root, with IS_SANDBOX set: agents may bypass permissions")
    else:
        yield passed(
            name,
            "root: the agent command refuses the permission mode bypassPermissions",
            "if this is a sandbox, and only then, set IS_SANDBOX=1; better, run as another user",
        )


def processes(system: str = sys.platform) -> Iterator[Finding]:
    """Look whether the system can make sure that no agent outlives its worker."""
    name = "machine.processes"
    mend = "use Linux 5.3 or newer where a worker may be killed, and let containers have these calls"
    missing = _missing_calls() if system == "linux" else ["pidfd_open", "child subreapers"]
    if missing:
        message = f"an agent may outlive a worker that is killed: this system has no {' and no '.join(missing)}"
        yield warned(name, message, mend)
    else:
        yield passed(name, "no agent has to outlive its worker (pidfd_open, child subreapers)")


def _missing_calls() -> list[str]:
    missing = []
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        missing.append("pidfd_open")
    found = ctypes.c_int()
    if ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(found), 0, 0, 0):
        missing.append("child subreapers")
    return missing
