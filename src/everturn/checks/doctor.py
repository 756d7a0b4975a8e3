"""Which checks there are for a set of settings."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from everturn.checks import folders, machine, programs, store
from everturn.checks.findings import Check, Finding, passed
from everturn.checks.registry import registry
from everturn.clock import Clock, Ids
from everturn.settings import CONFIG_FILE, Settings, variables_of


def checks_of_machine(
    environment: Mapping[str, str], agent_folder: Path, clock: Clock, stop: threading.Event
) -> list[Check]:
    """Return the checks that need no settings.

    Args:
        environment: The variables of this process.
        agent_folder: Where the agent command keeps its settings.
        clock: Tells the time.
        stop: Once it is set, programs that were started are ended.
    """
    return [
        Check("programs.python", programs.python),
        Check("programs.sdk", programs.sdk),
        Check("programs.agent", partial(programs.agent, environment, stop), 2 * programs.AGENT_TIMEOUT_S),
        Check("programs.login", partial(programs.login, environment, agent_folder)),
        Check("programs.git", partial(programs.git, environment, stop)),
        Check("machine.clock", partial(machine.wall_clock, clock)),
        Check("machine.files", machine.open_files),
        Check("machine.temporary", machine.temporary),
        Check("machine.user", partial(machine.user, environment)),
        Check("machine.processes", machine.processes),
    ]


def checks_of_settings(
    settings: Settings,
    given: frozenset[str],
    environment: Mapping[str, str],
    scope: str | None,
    clock: Clock,
    ids: Ids,
) -> list[Check]:
    """Return the checks of what the settings name.

    Args:
        settings: The settings.
        given: The names of those that were given as options.
        environment: The variables of this process.
        scope: Whose folders in the store to try; default: a scope of its own.
        clock: Tells the time, and measures.
        ids: Makes names that nobody else uses.
    """
    state_mend = "put `state` on a local disk: EVERTURN_STATE, or state in everturn.toml"
    workdirs_mend = "put `workdirs` on a local disk: EVERTURN_WORKDIRS, or workdirs in everturn.toml"
    state = partial(folders.folder, "state", settings.state.absolute(), state_mend, must_execute=True)
    workdirs = partial(folders.folder, "workdirs", settings.workdirs_path(), workdirs_mend, must_execute=False)
    return [
        Check("settings.load", partial(_sources, settings, given, environment)),
        Check("store.key_file", partial(store.key_file, settings)),
        Check("store.reachable", partial(store.store, settings, scope, clock, ids), store.TIMEOUT_S),
        Check("registry.open", partial(registry, settings, ids)),
        Check("state.folder", state),
        Check("workdirs.folder", workdirs),
    ]


def _sources(settings: Settings, given: frozenset[str], environment: Mapping[str, str]) -> Iterator[Finding]:
    """Tell where settings come from. Their values are not shown: they may be secret."""
    groups: dict[str, list[str]] = {}
    for name in sorted(settings.model_fields_set):
        in_environment = any(environment.get(variable) for variable in variables_of(name))
        source = "options" if name in given else "the environment" if in_environment else CONFIG_FILE
        groups.setdefault(source, []).append(name)
    told = "; ".join(f"{', '.join(names)} from {source}" for source, names in groups.items())
    yield passed("settings.load", told or "all are at their defaults")
