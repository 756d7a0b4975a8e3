"""What runs are made of."""

from __future__ import annotations

from dataclasses import dataclass

from everturn.clock import Clock
from everturn.git.access import GitAccess
from everturn.host.folders import RunFolders
from everturn.mirrors.feed import MirrorFeed
from everturn.registry import Registry
from everturn.runner.dispatch import Stores
from everturn.runner.sweeping import Sweeper
from everturn.settings import Settings
from everturn.telemetry import Metrics
from everturn.workdirs import Workdirs


@dataclass(frozen=True)
class Parts:
    """What runs are made of; all runs of a process share them.

    Attributes:
        registry: Who owns which session.
        stores: Where transcripts go.
        workdirs: Where repositories are checked out.
        access: What git gets from us.
        folders: Where each run keeps what it needs on this machine.
        settings: How long things may take, and who we are.
        clock: Tells the time.
        metrics: What is counted.
        sweeper: Drops what is stale in the registry, at the first run.
        mirror: Keeps the search mirror of this machine up to date; `None`: nobody does.
    """

    registry: Registry
    stores: Stores
    workdirs: Workdirs
    access: GitAccess
    folders: RunFolders
    settings: Settings
    clock: Clock
    metrics: Metrics
    sweeper: Sweeper
    mirror: MirrorFeed | None = None
