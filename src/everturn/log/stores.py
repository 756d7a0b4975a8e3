"""A store from its URL, tried out before anything is trusted to it (docs/format.md, sections 2 and 5)."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import orjson
from obstore import exceptions
from obstore.store import LocalStore, MemoryStore, S3Store

from everturn.errors import Corrupt, Denied, Invalid, NotFound, Unavailable
from everturn.log.format import VERSION
from everturn.log.names import escape
from everturn.log.objects import BlockingObjects, Clients, Objects
from everturn.settings import Settings

if TYPE_CHECKING:
    from obstore.store import ClientConfig

FORMAT_KEY = "format.json"

_FORMAT = orjson.dumps({"format": "everturn", "version": VERSION})
_BUCKET = re.compile(r"[A-Za-z0-9._-]+")
_URL_HINT = "use s3://bucket/prefix, file:///folder or memory://"


def connect(url: str, settings: Settings) -> BlockingObjects:
    """Return the objects behind a URL. Nothing is asked of the store yet.

    Args:
        url: `s3://bucket/prefix`, `file:///folder` or `memory://`. The last is a new, empty store every time.
        settings: Time-outs, and where AWS is.

    Raises:
        Invalid: The URL is not one of these.
    """
    try:
        pieces = urlsplit(url)
    except ValueError as error:
        raise Invalid(f"cannot make a store of {url!r}: {error}", hint=_URL_HINT) from None
    path = unquote(pieces.path)
    if pieces.query or pieces.fragment or "\0" in path:
        raise Invalid(f"the store URL {url!r} has a query, a fragment or a NUL", hint=_URL_HINT)
    if pieces.scheme == "s3" and _BUCKET.fullmatch(pieces.netloc):
        clients = _s3(pieces.netloc, path.strip("/"), settings)
        return BlockingObjects(lambda: clients, url)
    if pieces.scheme == "file" and not pieces.netloc and path.startswith("/"):
        _check_folder(Path(path))
        return BlockingObjects(partial(_local, Path(path)), url)  # the folder is made at the first request
    if pieces.scheme == "memory" and not pieces.netloc and path in ("", "/"):
        return BlockingObjects(MemoryStore(), url)
    shown = url if "@" not in pieces.netloc else f"{pieces.scheme}://…"  # what stands before an @ may be a secret
    raise Invalid(f"cannot make a store of {shown!r}", hint=_URL_HINT)


async def admit(objects: Objects, scope: str, label: str) -> None:
    """Check that a store may be used: its format version is known and it honours create-if-absent.

    Two requests for a store in use, at most five for a new one. A store that is refused is left as it was.

    Raises:
        Invalid: The store has another format version, or overwrites what it was told only to create.
        Corrupt: There is a `format.json`, but it is not ours.
    """
    gate = await objects.get(FORMAT_KEY)
    if gate is not None:
        _check_version(gate.data, label)
    await _probe(objects, f"probes/{escape(scope, 'scope')}.json", label)
    for pause_s in (0.1, 0.4, 1.6):
        if gate is not None or await objects.create(FORMAT_KEY, _FORMAT):
            return
        gate = await objects.get(FORMAT_KEY)
        if gate is not None:
            _check_version(gate.data, label)
        else:  # busy: somebody else is creating it
            await objects.wait(pause_s)
    raise Unavailable(f"{label} is busy", hint="it is safe to try again")


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


async def _probe(objects: Objects, key: str, label: str) -> None:
    content = orjson.dumps({"probe": "everturn"})
    if not await objects.create(key, content):
        return
    if await objects.create(key, content):
        await objects.delete([key])
        raise Invalid(
            f"{label} overwrites objects that it was told only to create",
            hint="Everturn needs a store that honours If-None-Match; update the gateway or use another store",
        )


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


def _s3(bucket: str, prefix: str, settings: Settings) -> Clients:
    """Make clients that differ in their time-outs: an append begins nothing after its deadline, so that together
    they do not outlast the SDK's patience of 60 s.

    A download may take longer than other requests, as long as bytes keep coming. An upload sends first and hears
    last, so it can only be bounded as a whole, and a large one needs more than a small one.
    """
    endpoint = settings.aws_endpoint_url_s3 or settings.aws_endpoint_url
    options: dict[str, Any] = {"checksum_algorithm": "SHA256"}
    if endpoint:
        options["endpoint"] = endpoint
    if settings.aws_profile:
        options["credential_provider"] = _profile(settings.aws_profile)

    def client(timeouts: ClientConfig) -> S3Store:
        return S3Store(
            bucket,
            prefix=prefix or None,
            client_options={
                "allow_http": bool(endpoint and endpoint.startswith("http://")),
                "connect_timeout": timedelta(seconds=settings.request_timeout_s / 2),
                **timeouts,
            },
            retry_config={
                "max_retries": 3,
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=2),
                    "base": 2,
                },
                "retry_timeout": timedelta(seconds=settings.request_timeout_s),
            },
            **options,
        )

    quick, patient = timedelta(seconds=settings.request_timeout_s), timedelta(seconds=settings.transfer_timeout_s)
    try:
        return Clients(
            read=client({"read_timeout": quick, "timeout": patient}),
            write=client({"timeout": quick}),
            write_large=client({"timeout": patient}),
        )
    except (ValueError, exceptions.BaseError) as error:
        reason = str(error).partition("\n")[0]
        raise Invalid(f"cannot use the bucket {bucket!r}: {reason}", hint=_URL_HINT) from error


def _profile(name: str) -> Any:
    """Take credentials from an AWS profile, single sign-on included. Only boto3 can read those."""
    try:
        session = import_module("boto3").Session(profile_name=name)
        return import_module("obstore.auth.boto3").Boto3CredentialProvider(session)
    except ImportError:
        raise Invalid(
            f"AWS_PROFILE={name} needs boto3 to be read",
            hint="pip install 'everturn[aws]', or unset AWS_PROFILE",
        ) from None
    except Exception as error:
        raise Invalid(f"the AWS profile {name!r} cannot be used: {error}", hint="check ~/.aws/config") from error
