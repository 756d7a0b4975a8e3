"""The registry: opens, is of a version we know, whole, and can be written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from everturn.checks.findings import Finding, failed, passed
from everturn.checks.folders import locks, scratch, space
from everturn.clock import Ids
from everturn.databases import connect
from everturn.errors import EverturnError, Held
from everturn.model import Holder, WorkItem
from everturn.registry import Registry, open_registry
from everturn.settings import Settings

CLAIM_TTL_S = 60.0

_NOBODY = WorkItem.task("everturn-doctor")
_MEND = "put the registry on a local disk; for several machines, one that they reach over the network"


def registry(settings: Settings, ids: Ids) -> Iterator[Finding]:
    """Look at the registry. Nothing that is written stays.

    Args:
        settings: Where it is, and how it is reached.
        ids: Makes names that nobody else uses.
    """
    url = settings.registry_url()
    opened = open_registry(url, settings=settings)
    if url.startswith("sqlite:"):
        yield from _sqlite(Path(url.partition("://")[2]))
    else:
        opened.get(_NOBODY)
        yield passed("registry.open", f"{url} answers")
        yield _claimed(opened, ids.token())


def _claimed(opened: Registry, token: str) -> Finding:
    """Claim a work item of our own twice: the second time has to be refused."""
    name, work = "registry.write", WorkItem.task(f"everturn-doctor-{token}")
    claim = opened.claim(work, Holder("doctor", run_id=f"{token}-1"), ttl_s=CLAIM_TTL_S)
    try:
        opened.claim(work, Holder("doctor", run_id=f"{token}-2"), ttl_s=CLAIM_TTL_S)
    except Held:
        return passed(name, "a claim was made, refused to another, and dropped")
    finally:
        known = opened.get(work)
        opened.drop(work, claim.session_id if known is None else known.session_id, "it was made to try the registry")
    return failed(name, "two hold the same claim", "conditional writes do not work there; use another registry")


def _sqlite(path: Path) -> Iterator[Finding]:
    yield space("registry.space", path.parent)
    with scratch(path.parent) as place:  # what SQLite writes beside the file has to go somewhere, too
        trial = place / "registry.db"
        if path.exists():
            _open_copy(path, trial)
            yield passed("registry.open", f"{path} is of a version that this release knows")
        else:
            open_registry(f"sqlite://{trial}").claim(_NOBODY, Holder("doctor"), ttl_s=CLAIM_TTL_S)
            yield passed("registry.open", f"{path} will be made when it is needed")
        yield from _whole(path if path.exists() else trial)
        yield locks("registry.locks", place, _MEND)


def _open_copy(path: Path, trial: Path) -> None:
    """Open a copy of a file: to open one of an older version is to bring it up to date."""
    with _told(path), closing(connect(path, "ro")) as there, closing(sqlite3.connect(trial)) as copy:
        there.backup(copy)
    try:
        open_registry(f"sqlite://{trial}").get(_NOBODY)
    except EverturnError as error:
        raise type(error)(error.message.replace(str(trial), str(path)), hint=error.hint) from error


def _whole(path: Path) -> Iterator[Finding]:
    with _told(path):
        with closing(connect(path, "ro")) as connection:
            (first, *_) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if first != "ok":
            yield failed(
                "registry.integrity", f"{path} is damaged: {first}", "restore it from a copy, or move it away"
            )
            return
        yield passed("registry.integrity", "what is in it is whole (quick_check)")
        with closing(connect(path, "rw")) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        yield passed("registry.write", "a transaction can be begun; it was rolled back")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say in our own words what SQLite refuses."""
    try:
        yield
    except sqlite3.Error as error:
        hint = "restore it from a copy, or move it away; if it is busy, see who keeps it locked"
        raise EverturnError(f"{path} cannot be used: {error}", hint=hint) from error
