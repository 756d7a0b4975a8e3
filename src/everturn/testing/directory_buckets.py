"""The rules of S3 directory buckets (S3 Express One Zone), around any S3 server that is a WSGI application.

What general purpose buckets allow and directory buckets do not is refused, so that a client that depends on it fails
here and not in production. The rules, from AWS's documentation:

- a bucket's name is `base--zone--x-s3`, and it is reached at `bucket.s3express-zone.region.amazonaws.com` only
  ("Directory bucket naming rules", "Regional and Zonal endpoints" in the S3 User Guide);
- requests are signed with the credentials of a session, which `CreateSession` gives for five minutes, and carry its
  token in `x-amz-s3session-token` (API reference of CreateSession);
- `ListObjectsV2` returns objects in no order, takes no `StartAfter`, only `/` as a delimiter and only prefixes that
  end in `/`; `ListObjects` is not there (API reference of ListObjectsV2);
- `PutObject` takes no `Content-MD5`, no ACL, no tags, no object lock, no key of the customer's, no DSSE-KMS and no
  other storage class; `DeleteObjects` wants a checksum (API references of both);
- an ETag is no MD5, versions and subresources such as `?acl` and `?tagging` are not there ("Differences for
  directory buckets" in the S3 User Guide).

`If-None-Match` is honoured as the server inside honours it. Where the documentation does not say with which code
something is refused, it is 400 `InvalidRequest`, or 501 `NotImplemented` for what is not there at all.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from threading import Lock
from typing import Any
from urllib.parse import parse_qsl, urlencode
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from everturn.clock import Clock, SystemClock

SESSION_S = 300.0
PAGE = 1000

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_HOST = re.compile(
    r"(?P<bucket>[a-z0-9][a-z0-9-]{0,61}--(?P<zone>[a-z0-9-]+)--x-s3)\.s3express-(?P=zone)\.[a-z0-9-]+\.amazonaws\.com"
)
_CREDENTIAL = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/]+)/")
_NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
_SUBRESOURCES = {"acl", "tagging", "versioning", "versions", "retention", "legal-hold", "torrent", "restore"}
_REFUSED_HEADERS = (
    "content-md5",
    "x-amz-acl",
    "x-amz-grant-",
    "x-amz-tagging",
    "x-amz-object-lock-",
    "x-amz-website-redirect-location",
    "x-amz-server-side-encryption-customer-",
)
_CHECKSUMS = (
    "content-md5",
    "x-amz-checksum-crc32",
    "x-amz-checksum-crc32c",
    "x-amz-checksum-sha1",
    "x-amz-checksum-sha256",
)


class _Refused(Exception):
    """What the server answers instead of doing what it was asked to."""

    def __init__(self, status: str, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class _Session:
    bucket: str
    key_id: str
    expires_at: float


@dataclass(frozen=True)
class _Reply:
    status: str
    headers: list[tuple[str, str]]
    body: bytes


class DirectoryBuckets:
    """WSGI middleware that lets through what a directory bucket allows, and refuses the rest.

    Args:
        app: An S3 server that takes path-style requests and does not check signatures, as moto's does.
        clock: When sessions expire.
    """

    def __init__(self, app: WsgiApp, clock: Clock | None = None) -> None:
        self._app = app
        self._clock = clock or SystemClock()
        self._sessions: dict[str, _Session] = {}
        self._lock = Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        try:
            reply = self._answer(environ)
        except _Refused as refusal:
            body = f"<Error><Code>{refusal.code}</Code><Message>{escape(str(refusal))}</Message></Error>"
            reply = _Reply(refusal.status, [("Content-Type", "application/xml")], body.encode())
        start_response(reply.status, reply.headers)
        return [reply.body]

    def _answer(self, environ: dict[str, Any]) -> _Reply:
        host = _HOST.fullmatch(environ.get("HTTP_HOST", ""))
        if host is None:
            raise _invalid("a directory bucket is reached at its zone's address, with its name in the host")
        bucket, method, path = host["bucket"], environ["REQUEST_METHOD"], environ["PATH_INFO"]
        query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
        if method == "GET" and path == "/" and "session" in query:
            return self._create_session(environ, bucket)
        self._check_session(environ, bucket)
        if found := _SUBRESOURCES & query.keys():
            raise _not_there(f"?{found.pop()}")
        if query.get("versionId", "null") != "null":
            raise _invalid("directory buckets have no versions")
        if method == "GET" and path == "/":
            return self._list(environ, bucket, query)
        if method == "PUT":
            _check_put(environ)
        if method == "POST" and "delete" in query:
            environ = _checked_delete(environ)
        return self._inside(environ, bucket)

    # --- Sessions -------------------------------------------------------------------------------------------------

    def _create_session(self, environ: dict[str, Any], bucket: str) -> _Reply:
        if _signer(environ) is None:
            raise _Refused("403 Forbidden", "AccessDenied", "CreateSession has to be signed")
        if _header(environ, "x-amz-create-session-mode") not in (None, "ReadWrite", "ReadOnly"):
            raise _invalid("there is no such session mode")
        exists = self._inside({**environ, "QUERY_STRING": "list-type=2&max-keys=0"}, bucket)
        if not exists.status.startswith("200"):
            return exists
        session = _Session(bucket, f"ASIA{secrets.token_hex(8).upper()}", self._clock.elapsed() + SESSION_S)
        token = secrets.token_urlsafe(48)
        with self._lock:
            self._sessions[token] = session
        expiration = datetime.fromtimestamp(self._clock.now(), UTC) + timedelta(seconds=SESSION_S)
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<CreateSessionResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Credentials>'
            f"<SessionToken>{token}</SessionToken><SecretAccessKey>{secrets.token_hex(20)}</SecretAccessKey>"
            f"<AccessKeyId>{session.key_id}</AccessKeyId>"
            f"<Expiration>{expiration:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials></CreateSessionResult>"
        )
        return _Reply("200 OK", [("Content-Type", "application/xml")], body.encode())

    def _check_session(self, environ: dict[str, Any], bucket: str) -> None:
        token = _header(environ, "x-amz-s3session-token")
        with self._lock:
            session = self._sessions.get(token or "")
        if session is None or session.bucket != bucket or _signer(environ) != session.key_id:
            raise _Refused("403 Forbidden", "AccessDenied", "the request does not carry a session of this bucket")
        if _header(environ, "x-amz-security-token") is not None:
            raise _invalid("a session's token goes into x-amz-s3session-token")
        if self._clock.elapsed() >= session.expires_at:
            raise _Refused("400 Bad Request", "ExpiredToken", "the session has expired")

    # --- Listing --------------------------------------------------------------------------------------------------

    def _list(self, environ: dict[str, Any], bucket: str, query: dict[str, str]) -> _Reply:
        if query.get("list-type") != "2":
            raise _not_there("ListObjects")
        if "start-after" in query:
            raise _not_there("StartAfter")
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        if delimiter not in (None, "/"):
            raise _invalid("/ is the only delimiter")
        if prefix and not prefix.endswith("/"):
            raise _invalid("a prefix has to end in /")
        failure, found = self._everything(environ, bucket, prefix)
        if failure is not None:
            return failure
        rows = {_row_name(key, prefix, delimiter): row for key, row in found.items()}
        token = query.get("continuation-token", "")
        size = min(int(query.get("max-keys", PAGE)), PAGE)
        left = sorted((place, name) for name in rows if (place := _place(name)) > token)
        return _page(bucket, prefix, [(name, rows[name]) for _, name in left[:size]], left[size - 1 : size + 1])

    def _everything(self, environ: dict[str, Any], bucket: str, prefix: str) -> tuple[_Reply | None, dict[str, Any]]:
        """Return all objects below a prefix as the server inside lists them, or its refusal."""
        found: dict[str, Any] = {}
        query = {"list-type": "2", "encoding-type": "none", "prefix": prefix}
        while True:
            reply = self._inside({**environ, "QUERY_STRING": urlencode(query)}, bucket)
            if not reply.status.startswith("200"):
                return reply, {}
            tree = ET.fromstring(reply.body)  # noqa: S314  # from the server inside
            for row in tree.iter(f"{_NAMESPACE}Contents"):
                found[row.findtext(f"{_NAMESPACE}Key", "")] = row
            token = tree.findtext(f"{_NAMESPACE}NextContinuationToken", "")
            if not token:
                return None, found
            query["continuation-token"] = token

    def _inside(self, environ: dict[str, Any], bucket: str) -> _Reply:
        """Let the server inside answer, with ETags that are no MD5."""
        answer: list[Any] = []
        inner = {**environ, "HTTP_HOST": "127.0.0.1", "PATH_INFO": f"/{bucket}{environ['PATH_INFO']}"}
        for name in ("HTTP_X_AMZ_S3SESSION_TOKEN", "RAW_URI", "REQUEST_URI"):
            inner.pop(name, None)
        chunks = self._app(inner, lambda status, headers, *_: answer.extend((status, headers)))
        try:
            body = b"".join(chunks)
        finally:
            getattr(chunks, "close", lambda: None)()
        headers = [(name, _other_tag(value) if name.lower() == "etag" else value) for name, value in answer[1]]
        return _Reply(answer[0], headers, body)


def _invalid(message: str) -> _Refused:
    return _Refused("400 Bad Request", "InvalidRequest", message)


def _not_there(what: str) -> _Refused:
    return _Refused("501 Not Implemented", "NotImplemented", f"directory buckets have no {what}")


def _header(environ: dict[str, Any], name: str) -> str | None:
    value: str | None = environ.get(f"HTTP_{name.upper().replace('-', '_')}")
    return value


def _signer(environ: dict[str, Any]) -> str | None:
    found = _CREDENTIAL.match(environ.get("HTTP_AUTHORIZATION", ""))
    return found[1] if found else None


def _check_put(environ: dict[str, Any]) -> None:
    for name in (key[5:].lower().replace("_", "-") for key in environ if key.startswith("HTTP_")):
        if name.startswith(_REFUSED_HEADERS):
            raise _invalid(f"directory buckets take no {name}")
    if _header(environ, "x-amz-server-side-encryption") not in (None, "AES256", "aws:kms"):
        raise _invalid("directory buckets are encrypted with AES256 or aws:kms")
    if _header(environ, "x-amz-storage-class") not in (None, "EXPRESS_ONEZONE"):
        raise _Refused("400 Bad Request", "InvalidStorageClass", "EXPRESS_ONEZONE is the only storage class")


def _checked_delete(environ: dict[str, Any]) -> dict[str, Any]:
    """Check the keys of a DeleteObjects, and return the request with its body still to be read."""
    if not any(_header(environ, name) for name in _CHECKSUMS):
        raise _invalid("DeleteObjects wants a checksum")
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    for key in re.findall(rb"<Key>(.*?)</Key>", body, re.DOTALL):
        if not key.strip() or re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]", key):
            raise _invalid("DeleteObjects takes no such key")
    return {**environ, "wsgi.input": BytesIO(body)}


def _place(name: str) -> str:
    """Return where a name stands in a listing: always in the same place, but in no order."""
    return hashlib.sha256(name.encode()).hexdigest()


def _row_name(key: str, prefix: str, delimiter: str | None) -> str:
    """Return the key, or the folder that stands for it."""
    first, slash, _ = key.removeprefix(prefix).partition("/")
    return f"{prefix}{first}/" if delimiter and slash else key


def _page(bucket: str, prefix: str, rows: list[tuple[str, Any]], edge: list[tuple[str, str]]) -> _Reply:
    token = edge[0][0] if len(edge) > 1 else ""
    pieces = [
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">',
        f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(rows)}</KeyCount>",
        f"<MaxKeys>{PAGE}</MaxKeys><IsTruncated>{'true' if token else 'false'}</IsTruncated>",
    ]
    if token:
        pieces.append(f"<NextContinuationToken>{token}</NextContinuationToken>")
    pieces += [_row(name, row) for name, row in rows]
    body = "".join([*pieces, "</ListBucketResult>"]).encode()
    return _Reply("200 OK", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))], body)


def _row(name: str, row: Any) -> str:
    if name.endswith("/") and name != row.findtext(f"{_NAMESPACE}Key"):
        return f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
    modified, size, tag = (row.findtext(f"{_NAMESPACE}{field}") for field in ("LastModified", "Size", "ETag"))
    return (
        f"<Contents><Key>{escape(name)}</Key><LastModified>{modified}</LastModified><ETag>{_other_tag(tag)}</ETag>"
        f"<Size>{size}</Size><StorageClass>EXPRESS_ONEZONE</StorageClass></Contents>"
    )


def _other_tag(tag: str) -> str:
    return f'"{hashlib.sha256(tag.encode()).hexdigest()[:32]}"'
