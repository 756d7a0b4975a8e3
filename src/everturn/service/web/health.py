"""How the service is: whether its process lives, and whether it can do its work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from everturn.clock import Clock
from everturn.errors import EverturnError, NotFound
from everturn.log.objects import run as run_blocking
from everturn.log.stores import FORMAT_KEY, connect, visit
from everturn.model import WorkItem
from everturn.service.parts import Parts
from everturn.settings import Settings
from everturn.telemetry import get_logger

Phase = Literal["starting", "running", "stopping"]
Probe = Callable[[], object]

PROBE_PAUSE_S = 5.0
STALE_S = 20.0  # a probe that has not answered for so long counts as failed

_NOBODY = WorkItem.task("everturn-readiness")


@dataclass(frozen=True, slots=True)
class Ailment:
    """Something that the service needs and cannot use.

    Attributes:
        part: What it is: `logbook`, `registry`, `store`.
        message: What is wrong with it.
    """

    part: str
    message: str


@dataclass(slots=True)
class _Look:
    at: float
    problem: str | None
    kind: str


class Readiness:
    """Knows whether the service can do its work, without ever being waited for.

    Each probe has a thread of its own, so that one that hangs does not hide what the others find.

    Args:
        probes: What to try, by the name of what it tries.
        clock: Tells how old an answer is.
        pause_s: How long to wait between tries.
        stale_s: How old an answer may get.
    """

    def __init__(
        self,
        probes: Mapping[str, Probe],
        clock: Clock,
        *,
        pause_s: float = PROBE_PAUSE_S,
        stale_s: float = STALE_S,
    ) -> None:
        self.phase: Phase = "starting"
        self._probes = probes
        self._clock = clock
        self._pause_s = pause_s
        self._stale_s = stale_s
        self._looks: dict[str, _Look] = {}
        self._over = threading.Event()
        self._log = get_logger()

    @classmethod
    def of(cls, parts: Parts) -> Readiness:
        """Return one for the parts of the service."""
        return cls(probes_of(parts), parts.clock)

    def start(self) -> None:
        """Begin to look. Returns at once."""
        if self.phase == "starting":  # somebody may have told it to stop meanwhile
            self.phase = "running"
        for name, probe in self._probes.items():
            threading.Thread(target=self._keep_looking, args=(name, probe), name=f"probe-{name}", daemon=True).start()

    def stop(self) -> None:
        """Look no more: the service is stopping. Returns at once."""
        self.phase = "stopping"
        self._over.set()

    def ailments(self) -> list[Ailment]:
        """Return what cannot be used. What has not been tried yet counts as well."""
        now = self._clock.elapsed()
        found = []
        for name in self._probes:
            look = self._looks.get(name)
            if look is None:
                found.append(Ailment(name, "it has not answered yet"))
            elif look.problem is not None:
                found.append(Ailment(name, look.problem))
            elif now - look.at > self._stale_s:
                found.append(Ailment(name, f"it has not answered for {now - look.at:.0f} s"))
        return found

    def _keep_looking(self, name: str, probe: Probe) -> None:
        while not self._over.is_set():
            problem, kind = self._try(probe)
            before = self._looks.get(name)
            self._looks[name] = _Look(self._clock.elapsed(), problem, kind)
            if kind != (before.kind if before else ""):  # the sentence may be another one each time
                self._tell(name, problem)
            self._over.wait(self._pause_s)

    def _try(self, probe: Probe) -> tuple[str | None, str]:
        """Return what is wrong, and what kind of thing that is."""
        try:
            probe()
        except EverturnError as error:
            return error.message, type(error).__name__
        except Exception as error:  # noqa: BLE001  # whatever it is, the part cannot be used
            return f"{type(error).__name__} was raised", type(error).__name__
        return None, ""

    def _tell(self, name: str, problem: str | None) -> None:
        if problem is None:
            self._log.info("part_usable", part=name)
        else:
            self._log.error("part_unusable", part=name, reason=problem)


def probes_of(parts: Parts) -> dict[str, Probe]:
    """Return what tells whether the parts of the service can be used."""
    return {
        "logbook": lambda: parts.logbook.check().result(),
        "registry": lambda: parts.registry.get(_NOBODY),
        "store": _StoreProbe(parts.settings),
    }


class _StoreProbe:
    """Asks the store for one small object. One that nobody has written to yet is as good as any."""

    def __init__(self, settings: Settings) -> None:
        self._label = settings.store_url()
        self._objects = connect(self._label, settings)

    def __call__(self) -> None:
        try:
            run_blocking(visit(self._objects, self._label))
        except NotFound:
            run_blocking(self._objects.get(FORMAT_KEY))  # raises it again if it is the bucket that is not there
