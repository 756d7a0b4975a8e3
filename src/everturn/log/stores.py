"""A store from its URL, tried out before anything is trusted to it (docs/format.md, sections 2 and 5)."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
from obstore.store import LocalStore, MemoryStore, S3Store

from everturn.errors import Corrupt, Invalid
from everturn.log.names import escape
from everturn.log.objects import BlockingObjects, Objects, Store
from everturn.settings import Settings

VERSION = 1
FORMAT_KEY = "format.json"

_FORMAT = orjson.dumps({"format": "everturn", "version": VERSION})
_URL_HINT = "use s3://bucket/prefix, file:///folder or memory://"


def connect(url: str, settings: Settings) -> BlockingObjects:
    """Return the objects behind a URL. Nothing is asked of the store yet.

    Args:
        url: `s3://bucket/prefix`, `file:///folder` or `memory://`. The last is a new, empty store every time.
        settings: Time-outs, and where AWS is.

    Raises:
        Invalid: The URL is not one of these.
    """
    pieces = urlsplit(url)
    path = unquote(pieces.path)
    if pieces.query or pieces.fragment:
        raise Invalid(f"the store URL {url!r} has a query or a fragment", hint=_URL_HINT)
    store: Store
    if pieces.scheme == "s3" and pieces.netloc:
        store = _s3(pieces.netloc, path.strip("/"), settings)
    elif pieces.scheme == "file" and not pieces.netloc and path.startswith("/"):
        store = _local(Path(path))
    elif pieces.scheme == "memory" and not pieces.netloc and path in ("", "/"):
        store = MemoryStore()
    else:
        raise Invalid(f"cannot make a store of {url!r}", hint=_URL_HINT)
    return BlockingObjects(store, url)


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
    if gate is None and not await objects.create(FORMAT_KEY, _FORMAT):
        gate = await objects.get(FORMAT_KEY)
        _check_version(gate.data if gate else b"", label)


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


def _local(folder: Path) -> LocalStore:
    if folder.exists() and not folder.is_dir():
        raise Invalid(f"{folder} is a file", hint="name a folder in file:///folder")
    try:
        return LocalStore(prefix=folder, mkdir=True)
    except Exception as error:
        raise Invalid(f"cannot use the folder {folder}: {error}", hint="name a folder you may write to") from error


def _s3(bucket: str, prefix: str, settings: Settings) -> S3Store:
    endpoint = settings.aws_endpoint_url_s3 or settings.aws_endpoint_url
    options: dict[str, Any] = {}
    if endpoint:
        options["endpoint"] = endpoint
    if settings.aws_profile:
        options["credential_provider"] = _profile(settings.aws_profile)
    try:
        return S3Store(
            bucket,
            prefix=prefix or None,
            # A time-out may not outlast the deadline of an append, or the SDK gives up first (DESIGN 8).
            client_options={
                "allow_http": bool(endpoint and endpoint.startswith("http://")),
                "connect_timeout": timedelta(seconds=settings.request_timeout_s / 2),
                "timeout": timedelta(seconds=settings.request_timeout_s),
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
            checksum_algorithm="SHA256",
            **options,
        )
    except Exception as error:
        raise Invalid(f"cannot use the bucket {bucket!r}: {error}", hint=_URL_HINT) from error


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
