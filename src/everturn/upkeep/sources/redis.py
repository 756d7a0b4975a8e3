"""Sessions of the SDK's reference adapter for Redis.

    <prefix>:<project key>:<session id>               a list: the main transcript, an entry each
    <prefix>:<project key>:<session id>:<subpath>     a list: a subagent's
    <prefix>:<project key>:<session id>:__subkeys     a set: the subpaths
    <prefix>:<project key>:__sessions                 a sorted set: the session ids

The indexes and the lists expire on their own, each key for itself. So both are asked: a session that only one of them
knows is not passed over.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from everturn.errors import Conflict, Denied, EverturnError, Invalid, NotFound, Unavailable
from everturn.settings import Settings
from everturn.upkeep.sources.base import Line, is_session_id, label_of, split_url

SESSIONS = "__sessions"
SUBKEYS = "__subkeys"
PAGE = 1000  # entries, or keys, that the server hands out at once: it does nothing else meanwhile

_PATTERN = re.compile(r"[][*?\\]")
_WHO = re.compile(r"^User \S+ ")  # the server names who it refuses; our messages do not


class RedisLists:
    """The sessions below a prefix of a database.

    Args:
        url: `redis://`, `rediss://` or `unix://`, as the client reads it; `?prefix=` is the adapter's.
        settings: How patient to be.

    Raises:
        Invalid: The client is not installed, or cannot read the URL.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        url, given = split_url(url, "prefix")
        prefix = given.get("prefix", "")
        self._prefix = prefix.rstrip(":") + ":" if prefix else ""
        self.label = label_of(url) + (f"?prefix={prefix}" if prefix else "")
        self._client = _client(url, self.label, settings)
        self._subpaths: defaultdict[tuple[str, str], set[str]] = defaultdict(set)

    def names(self) -> list[tuple[str, str]]:
        """See `Source.names`. All keys of the database are looked through twice, a thousand at a time."""
        found: set[tuple[str, str]] = set()
        strange: set[str] = set()
        with self._asking():
            for key in self._keys("zset"):
                project, *rest = key.split(":", 2)
                if rest == [SESSIONS]:
                    found |= {(project, _text(each)) for each in self._client.zrange(self._prefix + key, 0, -1)}
                elif key.endswith(f":{SESSIONS}"):
                    strange.add(self._prefix + key.rsplit(":", 2)[0])
            for key in self._keys("list"):
                project, *rest = key.split(":", 2)
                if rest and is_session_id(rest[0]):
                    found.add((project, rest[0]))
                    self._subpaths[project, rest[0]] |= set(rest[1:])
        if strange and not found:
            raise NotFound(
                f"there are no sessions in {self.label}, but there are with other prefixes",
                hint="did you mean " + " or ".join(f"?prefix={each}" for each in sorted(strange)[:3]) + "?",
            )
        return sorted(found)

    def logs(self, project_key: str, session_id: str) -> dict[str | None, list[Line]]:
        """See `Source.logs`."""
        key = f"{self._prefix}{project_key}:{session_id}"
        with self._asking(key):
            indexed = {_text(each) for each in self._client.smembers(f"{key}:{SUBKEYS}")}
            subpaths = sorted(indexed | self._subpaths[project_key, session_id])
            return {None: self._lines(key)} | {each: self._lines(f"{key}:{each}") for each in subpaths}

    def _keys(self, kind: str) -> Iterator[str]:
        """Return the keys of a kind below the prefix, without it. Those that are no text are not the adapter's."""
        pattern = _PATTERN.sub(lambda found: f"\\{found[0]}", self._prefix) + "*"
        for key in self._client.scan_iter(match=pattern, count=PAGE, _type=kind):
            try:
                yield key.decode().removeprefix(self._prefix)
            except UnicodeDecodeError:
                continue

    def _lines(self, key: str) -> list[Line]:
        lines: list[Line] = []
        where = f"the list {key}"
        while found := self._client.lrange(key, len(lines), len(lines) + PAGE - 1):
            lines += [Line(where, number, data) for number, data in enumerate(found, len(lines) + 1)]
        if self._client.llen(key) < len(lines):
            raise Conflict(f"{where} was cut while it was read", hint="import it again; who deletes there?")
        return lines

    def close(self) -> None:
        """See `Source.close`."""
        self._client.close()

    @contextmanager
    def _asking(self, what: str = "the index") -> Iterator[None]:
        errors = import_module("redis.exceptions")
        try:
            yield
        except errors.RedisError as error:
            raise _translated(error, self.label, what) from None


def _client(url: str, label: str, settings: Settings) -> Any:
    try:
        client = import_module("redis").Redis
    except ImportError:
        raise Invalid(f"reading {label} needs redis", hint="pip install 'everturn[redis]'") from None
    try:
        made = client.from_url(
            url,
            decode_responses=False,
            socket_connect_timeout=settings.request_timeout_s,
            socket_timeout=settings.transfer_timeout_s,
        )
        made.connection_pool.make_connection()  # which connects to nothing, but looks at the parameters
    except (ValueError, TypeError):  # their text may hold the password
        raise Invalid(f"the URL of {label} cannot be used", hint="use redis://host:6379/0?prefix=…") from None
    return made


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _translated(error: Exception, label: str, what: str) -> EverturnError:
    errors = import_module("redis.exceptions")
    reason = _WHO.sub("this user ", str(error).partition("\n")[0])
    if isinstance(error, errors.AuthenticationError | errors.AuthorizationError | errors.NoPermissionError):
        return Denied(f"{label} refuses these credentials: {reason}", hint="they stand in the URL: user:password@")
    if isinstance(error, errors.ConnectionError | errors.TimeoutError):
        return Unavailable(f"{label} does not answer: {reason}", hint="check the address; it is safe to try again")
    if isinstance(error, errors.AskError):  # MOVED and ASK
        return Invalid(f"{label} is one node of a cluster", hint="restore a snapshot to one server, and name that")
    return Invalid(f"{what} in {label} cannot be read: {reason}", hint="is it the adapter's? check ?prefix=")
