"""The store: reachable, honest about what it was told, and open to the scope that is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from everturn.checks.findings import Finding, failed, passed, warned
from everturn.checks.folders import scratch, space
from everturn.clock import Clock, Ids
from everturn.errors import Denied, EverturnError, Invalid, Unavailable
from everturn.log.encryption import KeyFile
from everturn.log.format import VERSION
from everturn.log.names import escape
from everturn.log.objects import BlockingObjects, Objects, run
from everturn.log.roles import Assignment, RoleCredentials
from everturn.log.stores import FORMAT_KEY, locate, now_ms, probe, probe_key, role_of, visit
from everturn.settings import Settings

TIMEOUT_S = 60.0
SLOW_S = 1.0
CLOCK_WARN_S = 5.0
CLOCK_FAIL_S = 300.0
HASTY_DEADLINE_S = 3.0  # a person waits

_CONTENT = b'{"probe":"everturn doctor"}'
_ACTIONS = {"write": "s3:PutObject", "read": "s3:GetObject", "list": "s3:ListBucket", "delete": "s3:DeleteObject"}
_DISK_MENDS = {
    13: "give this user the right to write there, or name another folder",
    30: "the disk is mounted read-only: mount it writable, or name another folder",
    28: "the disk is full: free some room, or name another folder",
    122: "the disk quota is used up: free some room, or name another folder",
}
_OS_ERROR = re.compile(r"os error (\d+)")


@dataclass(frozen=True, slots=True)
class Area:
    """A folder of the store that has one folder for each scope (docs/format.md, section 1).

    Attributes:
        name: The folder.
        holds: What is in it, for people.
        tries: What runs and upkeep do in it.
        needs: What no run can do without. What else is refused is a warning.
    """

    name: str
    holds: str
    tries: tuple[str, ...]
    needs: tuple[str, ...] = ()


_ALL = ("write", "read", "list", "delete")
_NEEDED = ("write", "read", "list")
PROBES = Area("probes", "its probe", ("write", "read"), ("write", "read"))
AREAS = (
    Area("sessions", "transcripts", _ALL, _NEEDED),
    Area("homes", "notes of where sessions live", _ALL, _NEEDED),
    Area("summaries", "summaries", _ALL),
    Area("catalogs", "catalogs of summaries", _ALL),
    Area("journal", "journals of runs", _ALL),
    Area("traces", "traces of runs", ("write",)),
    Area("holds", "legal holds", ("read", "list"), ("read", "list")),
)


def key_file(settings: Settings) -> Iterator[Finding]:
    """Look at the file of keys to encrypt with, if one is named. Keys are not shown."""
    name, path = "store.key_file", settings.encryption_key_file
    if path is None:
        return
    key = KeyFile(path)(None)
    if path.stat().st_mode & 0o077:
        yield warned(name, f"{path} may be read by others", f"chmod 600 {path}")
    else:
        yield passed(name, f"{path}: new transcripts are encrypted with the key {key.name!r}")


def store(settings: Settings, scope: str | None, clock: Clock, ids: Ids) -> Iterator[Finding]:
    """Look at the store. Nothing that is written stays.

    A local folder that does not exist yet is not made: what it will be like is tried out beside it.

    Args:
        settings: Where it is, and how to talk to it.
        scope: Whose folders to try; default: a scope of its own.
        clock: Tells the time, and measures.
        ids: Makes names that nobody else uses.
    """
    url = settings.store_url()
    if url.startswith("memory:"):
        yield failed(
            "store.reachable",
            "memory:// keeps nothing when a command ends",
            "use s3://bucket/prefix or file:///folder",
        )
        return
    local = _folder_of(url)
    if local is not None:
        yield space("store.space", local)
    token = ids.token()
    credentials = None
    if settings.session_role is not None:
        scope = scope or f"doctor-{token}"
        try:
            credentials = _assumed(url, settings, scope, clock)
        except EverturnError as error:
            yield failed("store.role", error.message, error.hint)
            return
        yield passed(
            "store.role", f"{settings.session_role} gives credentials for one scope; they are used from here"
        )
    with _place(url, local) as (place, is_new):
        hasty = min(settings.retry_deadline_s, HASTY_DEADLINE_S)
        objects = locate(place, settings.model_copy(update={"retry_deadline_s": hasty}), clock, credentials)
        name = "store.reachable"
        try:
            for finding in StoreProbe(objects, url, scope, token, clock, settings.s3_sse).look(is_new=is_new):
                yield finding
                name = "store.write"
        except EverturnError as error:
            yield failed(name, error.message, _mend_of(error))
        if name == "store.write" or objects.throttled:
            yield _throttling(objects)


def _assumed(url: str, settings: Settings, scope: str, clock: Clock) -> RoleCredentials | None:
    """Return credentials of a role for one scope, which have just been had."""
    role = role_of(url, settings, clock)
    if role is None:
        return None
    credentials = role.credentials(Assignment(scope))
    credentials.renew()
    return credentials


def _throttling(objects: BlockingObjects) -> Finding:
    if objects.throttled:
        message = f"the store refused {objects.throttled} requests because there were too many"
        return warned("store.throttling", message, "fewer workers at once put less load on the store")
    return passed("store.throttling", "no request was refused because there were too many")


class StoreProbe:
    """Tries a store out.

    Args:
        objects: The store.
        label: Its URL, for messages.
        scope: Whose folders to try; default: a scope of its own.
        token: Makes names that nobody else uses.
        clock: Tells the time, and measures.
        sse: The setting `s3_sse`.
    """

    def __init__(
        self, objects: Objects, label: str, scope: str | None, token: str, clock: Clock, sse: str | None = None
    ) -> None:
        self._objects = objects
        self._label = label
        self._given_scope = scope
        self._token = token
        self._clock = clock
        self._sse = sse
        self._is_refused = False

    def look(self, *, is_new: bool = False) -> Iterator[Finding]:
        """Try everything, and take away what was made for it. Ends early if the store does not answer any more.

        Args:
            is_new: The store is a folder that does not exist yet.
        """
        yield self._reached(is_new)
        scope, is_ours = self._whose_probe()
        try:
            yield from self._honest(scope)
        finally:
            if is_ours:
                self._take_away(probe_key(scope))
        yield from self._permitted(scope)

    def _reached(self, is_new: bool) -> Finding:
        name = "store.reachable"
        if is_new:
            return passed(name, f"{self._label} will be made when it is needed")
        if run(self._objects.get(FORMAT_KEY)) is None:
            return passed(name, f"{self._label} answers; there are no transcripts in it yet")
        run(visit(self._objects, self._label))
        return passed(name, f"{self._label} answers; its format is version {VERSION}")

    def _whose_probe(self) -> tuple[str, bool]:
        """Return whose probe to use, and whether it is to be taken away.

        Each scope in use has a probe that stays. Where deletions are refused, what is made stays, too: then it is one
        object for all times.
        """
        scope = self._given_scope or f"doctor-{self._token}"
        with suppress(Denied):
            if run(self._objects.get(probe_key(scope))) is not None:
                return scope, False
        if self._refusal(lambda: self._objects.delete([probe_key(scope)])) is None:
            return scope, True
        return self._given_scope or "doctor", False

    def _honest(self, scope: str) -> Iterator[Finding]:
        try:
            yield from self._timed(scope)
        except Denied as error:
            if _folder_of(self._label) is not None:  # where nothing can be written, nothing else is worth a look
                raise
            yield self._refused(PROBES, scope, {"write": error})
            return
        if self._sse:
            yield passed("store.encryption", f"S3 took what was sent with s3_sse = {self._sse}")
        try:
            run(probe(self._objects, probe_key(scope), self._label))
            yield passed("store.conditional_create", "what is there is not overwritten (If-None-Match)")
        except Invalid as error:
            yield failed("store.conditional_create", error.message, error.hint)

    def _timed(self, scope: str) -> Iterator[Finding]:
        before, began = self._clock.now(), self._clock.elapsed()
        theirs = run(now_ms(self._objects, scope)) / 1000
        seconds, after = self._clock.elapsed() - began, self._clock.now()
        yield passed("store.read_after_write", "what was written is there at once")
        told = f"a small object was written and read back in {seconds:.3f} s"
        if seconds > SLOW_S:
            yield warned("store.latency", told, "use a store, or a bucket's region, that is nearer to this machine")
        else:
            yield passed("store.latency", told)
        # Told in whole seconds, cut off, while the request was on its way.
        yield self._apart(max(before - 1 - theirs, theirs - after, 0))

    def _apart(self, seconds: float) -> Finding:
        name, mend = "store.clock", "keep the clock of this machine right with NTP"
        told = f"the clocks of this machine and the store are {seconds:,.0f} s apart"
        if seconds > CLOCK_FAIL_S:
            return failed(name, told, mend)
        if seconds > CLOCK_WARN_S:
            return warned(name, told, mend)
        return passed(name, "this machine and the store tell the same time")

    def _permitted(self, scope: str) -> Iterator[Finding]:
        for area in AREAS:
            yield from self._tried(area, scope)
        if not self._is_refused:
            whose = f"scope {scope}" if self._given_scope else "a scope of its own (--scope tries another)"
            yield passed("store.permissions", f"{whose}: may write, read, list and delete")

    def _tried(self, area: Area, scope: str) -> Iterator[Finding]:
        """Try what may be done in a folder. Nothing is written that cannot be deleted."""
        folder = f"{area.name}/{escape(scope, 'scope')}/!probe-{self._token}"
        key = f"{folder}/probe.json"
        refusals: dict[str, Denied | None] = {}
        may_write = False
        if "write" in area.tries:
            refusals["delete"] = self._refusal(lambda: self._objects.delete([key]))
        try:
            if refusals.get("delete", True) is None:
                refusals["write"] = self._refusal(lambda: self._objects.create(key, _CONTENT))
                may_write = refusals["write"] is None
            if "list" in area.tries:
                refusals["list"] = self._refusal(lambda: self._objects.listing(folder))
            if "read" in area.tries and (may_write or refusals["list"] is None):  # else it may be as it is not there
                refusals["read"] = self._refusal(lambda: self._objects.get(key))
            if area.name == "sessions" and not any(refusals.values()):
                yield from self._listed(folder)
        finally:
            if may_write:
                self._take_away(key)
        refused = {act: error for act in area.tries if (error := refusals.get(act)) is not None}
        if refused:
            yield self._refused(area, scope, refused)

    def _listed(self, folder: str) -> Iterator[Finding]:
        if not run(self._objects.listing(folder)):
            yield failed(
                "store.list_after_write",
                "what was written is not listed at once",
                "Everturn needs a store whose listings are never old; use another store",
            )

    def _refused(self, area: Area, scope: str, refused: Mapping[str, Denied]) -> Finding:
        self._is_refused = True
        tell = failed if set(refused) & set(area.needs) else warned
        reason = next(iter(refused.values())).message
        message = f"scope {scope}: may not {' or '.join(refused)} {area.holds} ({area.name}/): {reason}"
        if "delete" in refused:
            message += "; writing was not tried, as it could not be taken away"
        return tell("store.permissions", message, self._mend_of_rights(area, scope, list(refused)))

    def _mend_of_rights(self, area: Area, scope: str, acts: Sequence[str]) -> str:
        local = _folder_of(self._label)
        if local is not None:
            return f"give this user the right to {' and '.join(acts)} in {local}"
        place = f"{self._label.rstrip('/')}/{area.name}/{escape(scope, 'scope')}"
        on_objects = [_ACTIONS[act] for act in acts if act != "list"]
        mends = [f"{', '.join(on_objects)} on {place}{'.json' if area is PROBES else '/*'}"] if on_objects else []
        if "list" in acts:
            prefix = urlsplit(place).path.removeprefix("/")
            mends.append(f"{_ACTIONS['list']} for the prefix {prefix}/*")
        return f"allow {' and '.join(mends)}"

    def _refusal(self, request: Callable[[], Coroutine[Any, Any, object]]) -> Denied | None:
        """Make a request, and return the error if it is not allowed."""
        try:
            run(request())
        except Denied as error:
            return error
        return None

    def _take_away(self, key: str) -> None:
        try:
            run(self._objects.delete([key]))
        except EverturnError as error:
            raise Unavailable(f"{key} was left in the store: {error.message}", hint="delete it") from error


def _mend_of(error: EverturnError) -> str:
    """Return what to do about an error; a disk says more than that it did not work."""
    found = _OS_ERROR.search(error.message)
    return _DISK_MENDS.get(int(found[1]), error.hint) if found else error.hint


def _folder_of(url: str) -> Path | None:
    pieces = urlsplit(url)
    return Path(unquote(pieces.path)) if pieces.scheme == "file" else None


@contextmanager
def _place(url: str, local: Path | None) -> Iterator[tuple[str, bool]]:
    """Yield the URL to try, and whether it stands for a folder that does not exist yet."""
    if local is None or local.exists():
        yield url, False
        return
    with scratch(local) as place:
        yield place.as_uri(), True
