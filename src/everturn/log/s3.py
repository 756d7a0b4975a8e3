"""How to talk to S3: time-outs, credentials, encryption by the store, directory buckets."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from obstore import exceptions
from obstore.store import S3Store

from everturn.errors import Invalid
from everturn.log.objects import Clients
from everturn.log.roles import RoleCredentials
from everturn.settings import Settings

if TYPE_CHECKING:
    from obstore.store import ClientConfig

CUSTOMER_KEY_BYTES = 32
_DIRECTORY_BUCKET = re.compile(r"(?!xn--|sthree-)[a-z0-9][a-z0-9-]*--[a-z0-9-]+--x-s3")
_ALGORITHMS = {"s3": "AES256", "kms": "aws:kms", "kms-dsse": "aws:kms:dsse", "c": "sse-c"}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def s3_clients(bucket: str, prefix: str, settings: Settings, credentials: RoleCredentials | None = None) -> Clients:
    """Make clients that differ in their time-outs: an append begins nothing after its deadline, so that together
    they do not outlast the SDK's patience of 60 s. They try nothing twice: that is for `Requests` to decide.

    A download may take longer than other requests, as long as bytes keep coming. An upload sends first and hears
    last, so it can only be bounded as a whole, and a large one needs more than a small one.

    Args:
        bucket: The bucket.
        prefix: The prefix in it; may be empty.
        settings: Time-outs, where S3 is, how it encrypts.
        credentials: What to use in place of the worker's own.

    Raises:
        Invalid: The bucket's name or a setting is wrong, or two settings do not go together.
    """
    endpoint = settings.aws_endpoint_url_s3 or settings.aws_endpoint_url
    express = is_express(bucket, endpoint, settings)
    options: dict[str, Any] = {
        "checksum_algorithm": "SHA256",
        "s3_express": express,
        **_encryption(endpoint, settings),
    }
    if endpoint:
        options["endpoint"] = endpoint
    if settings.aws_region:
        options["region"] = settings.aws_region
    if credentials is not None:
        options["credential_provider"] = credentials
    elif settings.aws_profile:
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
            retry_config={"max_retries": 0},
            **options,
        )

    quick, patient = timedelta(seconds=settings.request_timeout_s), timedelta(seconds=settings.transfer_timeout_s)
    try:
        return Clients(
            read=client({"read_timeout": quick, "timeout": patient}),
            write=client({"timeout": quick}),
            write_large=client({"timeout": patient}),
            lists_in_order=not express,
        )
    except (ValueError, exceptions.BaseError) as error:
        reason = str(error).partition("\n")[0]
        raise Invalid(
            f"cannot use the bucket {bucket!r}: {reason}", hint="use s3://bucket/prefix, and see docs/settings.md"
        ) from error


def is_express(bucket: str, endpoint: str | None, settings: Settings) -> bool:
    """Tell whether a bucket is a directory bucket (S3 Express): by its name, unless the setting says otherwise."""
    express = bucket.endswith("--x-s3") if settings.s3_express is None else settings.s3_express
    if not express:
        return False
    if len(bucket) > 63 or not _DIRECTORY_BUCKET.fullmatch(bucket):
        raise Invalid(
            f"{bucket!r} is no name of an S3 Express bucket",
            hint="it ends in the zone and --x-s3, as in agents--use1-az5--x-s3; else leave s3_express out",
        )
    if endpoint:
        raise Invalid(
            f"the S3 Express bucket {bucket!r} is reached at its zone's own address, not at {endpoint}",
            hint="unset AWS_ENDPOINT_URL, or set s3_express = false if that endpoint serves it as an ordinary bucket",
        )
    if settings.s3_sse:
        raise Invalid(
            f"an S3 Express bucket encrypts as it was set up to, not as s3_sse = {settings.s3_sse} says",
            hint="leave s3_sse out, and set the default encryption of the bucket",
        )
    return True


def _encryption(endpoint: str | None, settings: Settings) -> dict[str, Any]:
    """Return the options for encryption by the store."""
    kind = settings.s3_sse
    _require(kind in ("kms", "kms-dsse"), settings.s3_sse_kms_key, "s3_sse_kms_key", "kms or kms-dsse")
    _require(kind == "kms", settings.s3_sse_bucket_key, "s3_sse_bucket_key", "kms")
    _require(kind == "c", settings.s3_sse_customer_key_file, "s3_sse_customer_key_file", "c")
    if kind is None:
        return {}
    options: dict[str, Any] = {"server_side_encryption": _ALGORITHMS[kind]}
    if settings.s3_sse_kms_key is not None:
        options["sse_kms_key_id"] = settings.s3_sse_kms_key
    if settings.s3_sse_bucket_key is not None:
        options["sse_bucket_key_enabled"] = settings.s3_sse_bucket_key
    if kind == "c":
        options["sse_customer_key_base64"] = _customer_key(settings.s3_sse_customer_key_file)
        _refuse_open_line(endpoint)
    return options


def _require(fits: bool, value: object, name: str, kinds: str) -> None:
    if value is not None and not fits:
        raise Invalid(f"{name} is set, but s3_sse is not {kinds}", hint=f"leave {name} out, or set s3_sse")


def _customer_key(file: Path | None) -> str:
    if file is None:
        raise Invalid("s3_sse is c, but there is no key", hint="name its file in s3_sse_customer_key_file")
    try:
        key = file.read_bytes()
    except OSError as error:
        raise Invalid(f"the key cannot be read from {file}: {error.strerror}", hint="name a readable file") from None
    if len(key) != CUSTOMER_KEY_BYTES:
        try:
            key = b64decode(key.strip(), validate=True)
        except ValueError:
            key = b""
    if len(key) != CUSTOMER_KEY_BYTES:
        raise Invalid(
            f"{file} does not hold a key of {CUSTOMER_KEY_BYTES} bytes, raw or in base64",
            hint=f"make one with: openssl rand -base64 {CUSTOMER_KEY_BYTES}",
        )
    return b64encode(key).decode("ascii")


def _refuse_open_line(endpoint: str | None) -> None:
    """S3 refuses keys that come over plain HTTP; so do we, before one is sent."""
    if endpoint and endpoint.startswith("http://") and urlsplit(endpoint).hostname not in _LOOPBACK:
        raise Invalid(
            f"s3_sse is c, and the key would go to {endpoint} for all to read", hint="use an https:// endpoint"
        )


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
