"""The registry: opens, is of a version we know, whole, and can be written."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from everturn.checks.findings import Finding, failed, passed
from everturn.checks.folders import locks, scratch, space
from everturn.errors import EverturnError
from everturn.model import WorkItem
from everturn.registry import open_registry

BUSY_TIMEOUT_S = 10.0

_NOBODY = WorkItem.task("everturn-doctor")
_MEND = "put the registry on a local disk; for several machines, one that they reach over the network"


def registry(url: str) -> Iterator[Finding]:
    """Look at the registry. Nothing that is written stays.

    Args:
        url: Where it is.
    """
    opened = open_registry(url)
    scheme = url.partition("://")[0]
    yield from _BY_SCHEME.get(scheme, _any)(url, lambda: opened.get(_NOBODY))


def _any(_url: str, ask: Callable[[], object]) -> Iterator[Finding]:
    """Look at one that we know nothing about but that it answers."""
    ask()
    yield passed("registry.open", "it answers")


def _sqlite(url: str, ask: Callable[[], object]) -> Iterator[Finding]:
    path = Path(url.partition("://")[2])
    yield space("registry.space", path.parent)
    with scratch(path.parent) as place:  # what SQLite writes beside the file has to go somewhere, too
        if path.exists():
            ask()
            yield passed("registry.open", f"{path} is of a version that this release knows")
        else:
            open_registry(f"sqlite://{place / 'registry.db'}").claim(_NOBODY, "doctor")
            yield passed("registry.open", f"{path} will be made when it is needed")
        yield from _whole(path if path.exists() else place / "registry.db")
        yield locks("registry.locks", place, _MEND)


def _whole(path: Path) -> Iterator[Finding]:
    try:
        with closing(_connect(path, "ro")) as connection:
            (first, *_) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if first != "ok":
            yield failed(
                "registry.integrity", f"{path} is damaged: {first}", "restore it from a copy, or move it away"
            )
            return
        yield passed("registry.integrity", "what is in it is whole (quick_check)")
        with closing(_connect(path, "rw")) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        yield passed("registry.write", "a transaction can be begun; it was rolled back")
    except sqlite3.Error as error:
        hint = "restore it from a copy, or move it away; if it is busy, see who keeps it locked"
        raise EverturnError(f"{path} cannot be used: {error}", hint=hint) from error


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)


_BY_SCHEME = {"sqlite": _sqlite}
