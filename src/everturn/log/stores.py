"""A store from its URL, tried out before anything is trusted to it (docs/format.md, sections 2 and 5)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

import orjson
from obstore import exceptions
from obstore.store import LocalStore, MemoryStore

from everturn.clock import Clock, Ids, SystemClock
from everturn.errors import Corrupt, Denied, EverturnError, Invalid, NotFound, Unavailable
from everturn.log.encryption import KeyFile, Keys, SealedObjects
from everturn.log.format import VERSION
from everturn.log.names import escape
from everturn.log.objects import BlockingObjects, Clients, Objects
from everturn.log.patience import Backoff
from everturn.log.requests import Requests
from everturn.log.roles import BUCKET_NAME, Assignment, RoleCredentials, SessionRole
from everturn.log.s3 import is_express, s3_clients
from everturn.model import shown_url
from everturn.settings import Settings

FORMAT_KEY = "format.json"

_FORMAT = orjson.dumps({"format": "everturn", "version": VERSION})
_PROBE = orjson.dumps({"probe": "everturn"})
_PAUSES_S = (0.1, 0.4, 1.6)
_URL_HINT = "use s3://bucket/prefix, file:///folder or memory://"


def connect(
    url: str,
    settings: Settings,
    keys: Keys | None = None,
    *,
    assignment: Assignment | None = None,
    role: SessionRole | None = None,
) -> SealedObjects:
    """Return the objects behind a URL. Nothing is asked of the store yet.

    Args:
        url: `s3://bucket/prefix`, `file:///folder` or `memory://`. The last is a new, empty store every time.
        settings: Time-outs, patience, where AWS is, and whether to encrypt.
        keys: Keys to encrypt with; go before the setting.
        assignment: Whose work it is for. With the setting `session_role`, the objects of its scope are all that can
            be reached then; without an assignment they are reached with the worker's own credentials.
        role: What `role_of` returns, for who connects many times.

    Raises:
        Invalid: The URL is not one of these, settings do not go together, or the key file is not as it should be.
    """
    if keys is None and settings.encryption_key_file is not None:
        keys = KeyFile(settings.encryption_key_file)
    credentials = None
    if assignment is not None and (role := role or role_of(url, settings)):
        credentials = role.credentials(assignment)
    return SealedObjects(locate(url, settings, credentials=credentials), keys, Ids())


def role_of(url: str, settings: Settings, clock: Clock | None = None) -> SessionRole | None:
    """Return the role that gives credentials for one scope of a store; `None` if the settings ask for none.

    Raises:
        Invalid: They do, and access to such a store cannot be limited to a scope.
    """
    if settings.session_role is None:
        return None
    pieces, path = _pieces(url)
    if pieces.scheme != "s3":
        raise Invalid(
            f"session_role is set, but access to {shown_url(url)} has no roles",
            hint="use s3://bucket/prefix, or unset it",
        )
    bucket = pieces.netloc
    if is_express(bucket, settings.aws_endpoint_url_s3 or settings.aws_endpoint_url, settings):
        raise Invalid(
            f"session_role is set, but S3 Express gives access to the whole bucket {bucket!r} or to nothing of it",
            hint="use an ordinary bucket, or unset session_role",
        )
    return SessionRole(settings, bucket, path.strip("/"), clock=clock)


def locate(
    url: str, settings: Settings, clock: Clock | None = None, credentials: RoleCredentials | None = None
) -> BlockingObjects:
    """Return the objects behind a URL as they are stored; `connect` decrypts them.

    Args:
        url: See `connect`.
        settings: See `connect`.
        clock: For tests.
        credentials: What to reach them with, in place of the worker's own.

    Raises:
        Invalid: See `connect`.
    """
    clock = clock or SystemClock()
    requests = Requests(
        url,
        clock=clock,
        width=settings.parallel_requests,
        backoff=Backoff(settings.retry_start_s, settings.retry_limit_s),
        deadline_s=settings.retry_deadline_s,
    )
    prepare = credentials.renew if credentials else None
    return BlockingObjects(_store(url, settings, credentials), url, clock, requests, prepare)


def _store(url: str, settings: Settings, credentials: RoleCredentials | None) -> MemoryStore | Callable[[], Clients]:
    pieces, path = _pieces(url)
    if pieces.scheme == "s3" and BUCKET_NAME.fullmatch(pieces.netloc):
        clients = s3_clients(pieces.netloc, path.strip("/"), settings, credentials)
        return lambda: clients
    if pieces.scheme == "file" and not pieces.netloc and path.startswith("/"):
        _check_folder(Path(path))
        return partial(_local, Path(path))  # the folder is made at the first request
    if pieces.scheme == "memory" and not pieces.netloc and path in ("", "/"):
        return MemoryStore()
    raise Invalid(f"cannot make a store of {shown_url(url)!r}", hint=_URL_HINT)


def _pieces(url: str) -> tuple[SplitResult, str]:
    """Return a store URL's pieces, and its path with nothing in it escaped."""
    try:
        pieces = urlsplit(url)
    except ValueError:  # what it says may hold what stands before an @
        raise Invalid(f"cannot make a store of {shown_url(url)!r}", hint=_URL_HINT) from None
    path = unquote(pieces.path)
    if pieces.query or pieces.fragment or "\0" in path:
        raise Invalid(f"the store URL {shown_url(url)!r} has a query, a fragment or a NUL", hint=_URL_HINT)
    return pieces, path


async def admit(objects: Objects, scope: str, label: str) -> None:
    """Check that a store may be used: its format version is known and it honours create-if-absent.

    Two requests for a store in use, at most five for a new one. A store that is refused is left as it was.

    Raises:
        Invalid: The store has another format version, or overwrites what it was told only to create.
        Corrupt: There is a `format.json`, but it is not ours.
        Denied: The credentials do not allow it, or the store is new and they do not allow to make it.
    """
    gate = await objects.get(FORMAT_KEY)
    if gate is not None:
        _check_version(gate.data, label)
    await probe(objects, probe_key(scope), label)
    for pause_s in _PAUSES_S:
        if gate is not None or await _found(objects, scope, label):
            return
        gate = await objects.get(FORMAT_KEY)
        if gate is not None:
            _check_version(gate.data, label)
        else:  # busy: somebody else is creating it
            await objects.wait(pause_s)
    raise Unavailable(f"{label} is busy", hint="it is safe to try again")


async def _found(objects: Objects, scope: str, label: str) -> bool:
    """Make a store of an empty place. `False`: somebody else is doing so."""
    try:
        return await _create(objects, FORMAT_KEY, _FORMAT)
    except Denied:
        await _take_back(objects, probe_key(scope))
        raise Denied(
            f"{label} is no store yet, and these credentials may not make it one",
            hint="open it once with credentials that may write its format.json (docs/credentials.md)",
        ) from None


async def visit(objects: Objects, label: str) -> None:
    """Check that there is a store of a known format. One request; nothing is written.

    Raises:
        NotFound: There is none.
        Invalid: It has another format version.
        Corrupt: There is a `format.json`, but it is not ours.
    """
    gate = await objects.get(FORMAT_KEY)
    if gate is None:
        raise NotFound(f"there are no transcripts in {label}", hint="check --store, or EVERTURN_STORE")
    _check_version(gate.data, label)


def _check_version(data: bytes, label: str) -> None:
    try:
        gate = orjson.loads(data)
        version = gate["version"] if gate["format"] == "everturn" else None
    except (ValueError, KeyError, TypeError):
        version = None
    if version is None:
        raise Corrupt(
            f"{label} has a format.json that is not Everturn's",
            hint="use another prefix, or restore the file",
        )
    if version != VERSION:
        raise Invalid(
            f"{label} has format version {version}, this release knows version {VERSION}",
            hint="use a newer release of Everturn, or another prefix",
        )


async def now_ms(objects: Objects, scope: str) -> int:
    """Return the time by the store's own clock, in milliseconds since the Unix epoch.

    Two requests: the scope's probe is written once more, and looked at.
    """
    key = probe_key(scope)
    await objects.put(key, _PROBE)
    stored = await objects.get(key)
    if stored is None:
        raise Unavailable(f"{key} was written, but it is gone", hint="it is safe to try again")
    return stored.modified_ms


def probe_key(scope: str) -> str:
    """Return the key of a scope's probe."""
    return f"probes/{escape(scope, 'scope')}.json"


async def probe(objects: Objects, key: str, label: str) -> None:
    """Check that a store honours create-if-absent. The probe is there afterwards.

    Args:
        objects: The store.
        key: The probe's; see `probe_key`.
        label: The store's URL, for messages.

    Raises:
        Invalid: The store overwrites what it was told only to create. The probe is gone.
    """
    if not await _create(objects, key, _PROBE):
        return
    if await _create(objects, key, _PROBE):
        await _take_back(objects, key)
        raise Invalid(
            f"{label} overwrites objects that it was told only to create",
            hint="Everturn needs a store that honours If-None-Match; update the gateway or use another store",
        )


async def _take_back(objects: Objects, key: str) -> None:
    """Delete a probe, if that can be done: why the store is refused is worth more than that it is left as it was."""
    with suppress(EverturnError):
        await objects.delete([key])


async def _create(objects: Objects, key: str, content: bytes) -> bool:
    """Create what everybody would create alike: it does not matter which of several tries has had its effect."""
    for pause_s in _PAUSES_S:
        try:
            return await objects.create(key, content)
        except Unavailable:
            await objects.wait(pause_s)
    return await objects.create(key, content)


def _check_folder(folder: Path) -> None:
    try:
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
    except (OSError, ValueError) as error:
        raise Invalid(f"cannot use the folder {str(folder)!r}: {error}", hint="name one you may write to") from None
    if not nearest.is_dir():
        raise Invalid(f"{nearest} is a file", hint="name a folder in file:///folder")


def _local(folder: Path) -> Clients:
    try:
        store = LocalStore(prefix=folder, mkdir=True, automatic_cleanup=True)
    except (OSError, exceptions.BaseError) as error:
        reason = str(error).partition("\n")[0]
        raise Denied(f"cannot use the folder {folder}: {reason}", hint="name one you may write to") from error
    return Clients(store, store, store)
