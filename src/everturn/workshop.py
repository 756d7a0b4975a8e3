"""Everything that deals with workdirs, wired together. Settings in, components out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from everturn.clock import Clock, Ids, SystemClock
from everturn.git.access import GitAccess
from everturn.git.credentials import Credentials, Source, from_env, from_file, under_name
from everturn.git.runner import Git
from everturn.housekeeping.disk import Measurer
from everturn.housekeeping.eviction import Evictor
from everturn.housekeeping.freeing import Freeing
from everturn.housekeeping.removal import Removal
from everturn.housekeeping.sweeping import WorkdirSweeper
from everturn.registry import Registry
from everturn.settings import Settings, inherited_environment, read_variable
from everturn.telemetry import Metrics, default_metrics
from everturn.workdirs import Workdirs
from everturn.workdirs.rescuer import Rescuer
from everturn.workdirs.root import Root


@dataclass(frozen=True)
class Workshop:
    """What opens workdirs and looks after them.

    Attributes:
        root: Where they are.
        access: What git gets from us.
        workdirs: Opens them.
        rescuer: Looks what is unsaved in them.
        removal: Removes them.
        measurer: Measures them.
        sweeper: Sweeps them.
        freeing: Frees those whose work has ended, and ends their sessions.
    """

    root: Root
    access: GitAccess
    workdirs: Workdirs
    rescuer: Rescuer
    removal: Removal
    measurer: Measurer
    sweeper: WorkdirSweeper
    freeing: Freeing

    @classmethod
    def open(
        cls,
        settings: Settings,
        registry: Registry,
        *,
        credentials: Mapping[str, Source] | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """Wire it together. Nothing is made or asked for yet.

        Args:
            settings: Where things are, and how they are to be.
            registry: Knows which sessions can still be resumed.
            credentials: Where credentials come from, by the beginning of URLs; goes before the settings.
            clock: Tells the time.

        Raises:
            Invalid: An identity or the URL of a credential is wrong.
        """
        clock, metrics = clock or SystemClock(), default_metrics()
        access = _access(settings, clock, credentials or {})
        root = Root(settings.workdirs_path(), clock, Ids())
        git = Git(inherited_environment(), settings.git_timeout_s, settings.git_config_file, access.online)
        lock_timeout_s = settings.git_timeout_s
        rescuer = Rescuer(root, git, how=settings.workdir_rescue, metrics=metrics, lock_timeout_s=lock_timeout_s)
        removal = Removal(root, git, rescuer=rescuer, metrics=metrics)
        measurer = Measurer(root, git, metrics)
        workdirs = Workdirs(
            root,
            git,
            options=settings.repository_options,
            rescuer=rescuer,
            metrics=metrics,
            wait_s=settings.claim_wait_s,
            lock_timeout_s=lock_timeout_s,
            used=measurer.ask,
        )
        sweeper = _sweeper(settings, root, git, registry, removal, measurer, metrics)
        freeing = Freeing(root, removal, registry, clock=clock)
        return cls(root, access, workdirs, rescuer, removal, measurer, sweeper, freeing)


def _sweeper(
    settings: Settings,
    root: Root,
    git: Git,
    registry: Registry,
    removal: Removal,
    measurer: Measurer,
    metrics: Metrics,
) -> WorkdirSweeper:
    quota_bytes, free_bytes = settings.workdirs_quota_bytes, settings.workdirs_free_bytes
    return WorkdirSweeper(
        root,
        git,
        registry,
        removal=removal,
        evictor=Evictor(root, removal, measurer, quota_bytes=quota_bytes, free_bytes=free_bytes),
        measurer=measurer,
        max_age_s=settings.workdir_max_age_s,
        interval_s=settings.workdirs_sweep_s,
        metrics=metrics,
    )


def _access(settings: Settings, clock: Clock, given: Mapping[str, Source]) -> GitAccess:
    sources: dict[str, Source] = {}
    for url, named in settings.git_credentials.items():
        in_file = Path(named.token_file or "")
        source = from_env(named.token_env, read_variable) if named.token_env else from_file(in_file)
        sources[url] = under_name(named.username, source)
    access = GitAccess(
        Credentials({**sources, **given}, clock),
        settings.git_identity,
        inherited_environment(),
        settings.state.absolute() / "git",
        ca_file=settings.git_ca_file,
        clock=clock,
        ids=Ids(),
    )
    for agent in (None, *settings.agents()):
        access.identity(agent)  # a wrong one is refused now, not in the middle of a run
    return access
