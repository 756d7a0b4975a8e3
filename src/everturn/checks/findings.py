"""What a check finds, and how checks are run: beside each other, each with a time-out."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from everturn.clock import Clock
from everturn.errors import EverturnError

Status = Literal["pass", "warn", "fail"]

TIMEOUT_S = 20.0
CLEANUP_S = 3.0

_PASSWORD = re.compile(r"([a-z][a-z0-9+.-]*://)[^/\s]*@", re.IGNORECASE)
_QUERY = re.compile(r"([a-z][a-z0-9+.-]*://[^\s?'\"]*)\?[^\s'\"]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report.

    Attributes:
        name: What was looked at, behind its group and a dot: `store.clock`.
        status: `pass`, `warn` (it works, but not as it should) or `fail`.
        message: What was found.
        mend: What to do about it; empty if there is nothing to do.
        seconds: How long it took.
    """

    name: str
    status: Status
    message: str
    mend: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Check:
    """Something to look at.

    Attributes:
        name: What a failure is called that the check does not give a name to.
        look: Looks. It may block, and may raise an error: that is a failure, and what was found before it stands.
        timeout_s: How long it may take.
    """

    name: str
    look: Callable[[], Iterable[Finding]]
    timeout_s: float = TIMEOUT_S


def passed(name: str, message: str, mend: str = "") -> Finding:
    """Return a finding that all is well."""
    return Finding(name, "pass", message, mend)


def warned(name: str, message: str, mend: str) -> Finding:
    """Return a finding that something is not as it should be, though it works."""
    return Finding(name, "warn", message, mend)


def failed(name: str, message: str, mend: str) -> Finding:
    """Return a finding that something does not work."""
    return Finding(name, "fail", message, mend)


def examine(
    checks: Sequence[Check],
    clock: Clock,
    told: Callable[[int], None] = lambda _steps: None,
    stop: threading.Event | None = None,
) -> list[Finding]:
    """Run checks beside each other and return what they find, in their order.

    A check that breaks or takes too long does not stop the others. One that is left behind ends with its current
    step; it has a moment to put away what it has made.

    Args:
        checks: What to look at.
        clock: Measures.
        told: Is told of each check that is done.
        stop: Is set at the end, for checks that wait for others.
    """
    begun: list[_Examination] = []
    findings: list[Finding] = []
    try:
        for check in checks:
            begun.append(_Examination(check, clock))  # noqa: PERF401  # an interrupt may come at any of them
        for examination in begun:
            findings += examination.findings()
            told(1)
        return findings
    finally:
        if stop is not None:
            stop.set()
        _stop(begun, clock)


def _stop(begun: Sequence[_Examination], clock: Clock) -> None:
    """Let checks that are left behind put away what they have made, for as long as that may take."""
    for examination in begun:
        examination.over.set()
    until = clock.elapsed() + CLEANUP_S
    for examination in begun:
        examination.thread.join(max(0, until - clock.elapsed()))


class _Examination:
    """A check that runs in a thread. A daemon thread: one that hangs must not keep the command from ending."""

    def __init__(self, check: Check, clock: Clock) -> None:
        self._check = check
        self._clock = clock
        self._found: list[Finding] = []
        self.over = threading.Event()
        self._began = clock.elapsed()
        self.thread = threading.Thread(target=self._work, name=f"check-{check.name}", daemon=True)
        self.thread.start()

    def findings(self) -> list[Finding]:
        """Wait for the end of the check, or of its time, and return what it has found."""
        self.thread.join(max(0, self._check.timeout_s - (self._clock.elapsed() - self._began)))
        found = list(self._found)
        if self.thread.is_alive():
            hint = "see whether a disk, a network or a program hangs; run it again when the machine is less busy"
            message = f"took longer than {self._check.timeout_s:g} s"
            found.append(replace(failed(self._check.name, message, hint), seconds=self._check.timeout_s))
        return found

    def _work(self) -> None:
        began = self._began
        findings = self._findings()
        for finding in findings:
            now = self._clock.elapsed()
            self._found.append(_without_secrets(replace(finding, seconds=round(now - began, 3))))
            began = now
            if self.over.is_set():
                break
        findings.close()

    def _findings(self) -> Generator[Finding, None, None]:
        try:
            yield from self._check.look()
        except EverturnError as error:
            yield failed(self._check.name, error.message, error.hint)
        except OSError as error:
            yield failed(self._check.name, f"could not be looked at: {error}", "check the path and its permissions")
        except Exception as error:  # noqa: BLE001  # whatever it is, the other checks go on
            yield failed(self._check.name, f"the check itself broke: {error!r}", "report it, with this line")


def _without_secrets(finding: Finding) -> Finding:
    return replace(finding, message=without_secrets(finding.message), mend=without_secrets(finding.mend))


def without_secrets(text: str) -> str:
    """Return text without what stands before an `@`, or behind a `?`, in its URLs."""
    return _QUERY.sub(r"\1?…", _PASSWORD.sub(r"\1…@", text))
