"""What the service works with, wired together. Settings in, components out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from everturn.clock import Clock, Ids, SystemClock
from everturn.logbook.logbook import Logbook
from everturn.registry import Registry, open_registry
from everturn.settings import Settings
from everturn.telemetry import Metrics, default_metrics
from everturn.workshop import Workshop


@dataclass(frozen=True)
class Parts:
    """What the rooms of the service share.

    Attributes:
        settings: How all of it is to be.
        clock: Tells the time.
        ids: Makes ids, and jitter.
        metrics: What is counted, and shown on `/metrics`.
        registry: Knows which sessions there are, and who holds them.
        workshop: Looks after the workdirs of this machine.
        logbook: Keeps what came in and what was done.
    """

    settings: Settings
    clock: Clock
    ids: Ids
    metrics: Metrics
    registry: Registry
    workshop: Workshop
    logbook: Logbook

    @classmethod
    def open(cls, settings: Settings, *, clock: Clock | None = None) -> Self:
        """Wire it together. Nothing is made or asked for yet.

        Args:
            settings: How all of it is to be.
            clock: Tells the time.

        Raises:
            Invalid: A setting is wrong.
        """
        clock, ids = clock or SystemClock(), Ids()
        registry = open_registry(settings.registry_url(), ages=settings.session_ages(), settings=settings)
        return cls(
            settings=settings,
            clock=clock,
            ids=ids,
            metrics=default_metrics(),
            registry=registry,
            workshop=Workshop.open(settings, registry, clock=clock),
            logbook=Logbook(settings.logbook_path(), clock=clock, ids=ids),
        )

    def close(self) -> None:
        """Close the logbook. What it was told before is durable then."""
        self.logbook.close()
