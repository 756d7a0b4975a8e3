"""Who may have which credentials: a table of URLs, each with a source that is asked at the moment of use.

A credential is for one scheme, one host, one port, and what lies below one path. Everything that is not clearly the
same is another place, and gets nothing.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from everturn.clock import Clock
from everturn.errors import Denied, EverturnError, Invalid, NotFound, Unavailable

TOKEN_USERNAME = "x-access-token"  # noqa: S105  # what forges take for the name beside a token
EXPIRY_MARGIN_S = 300.0  # a push that begins with a credential has to end with it
KEPT_URLS = 1024
TOKEN_LIMIT_BYTES = 65536

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?P<path>/.*)?",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)
_PORTS = {"https": 443, "http": 80}
_LOOPBACK = re.compile(r"localhost|127\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}|\[::1\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Characters that a server may read in another way than we do.
_AMBIGUOUS = re.compile(r"[\x00-\x1f\x7f\\%?#/\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Credential:
    """What git sends to a host.

    Attributes:
        username: The name.
        password: The password or token. It is in no `repr`.
        expires_at: When it ends, in seconds since the Unix epoch; `None` if that is not known. What says so is kept
            until shortly before; everything else is asked for at each use.

    Raises:
        Invalid: One of them is empty or has control characters in it, so git could not be told of it.
    """

    username: str
    password: str = field(repr=False)
    expires_at: float | None = None

    def __post_init__(self) -> None:
        for what, text in (("username", self.username), ("password", self.password)):
            if not text or _CONTROL.search(text):
                raise Invalid(
                    f"the {what} of a git credential is empty, or has control characters in it",
                    hint="check what its source gives",
                )


Source = Callable[[str], Credential | str | None]
"""Given the URL that git asks for, returns what to send there: a credential, a token, or `None` for nothing. It may
block, and is called from several threads, though never twice at once."""


class Place(NamedTuple):
    """A URL in the one form in which it can be compared."""

    scheme: str
    host: str
    port: int
    path: tuple[str, ...]

    @classmethod
    def parse(cls, url: str) -> Place:
        """Read a URL.

        Raises:
            Invalid: It is not plainly one of `https://`, or of `http://` on loopback: it has a user, a query, dots
                for folders, or other things that two programs may understand in two ways.
        """
        match = _URL.fullmatch(url)
        if match is None:
            raise _unclear(url)
        scheme, host = match["scheme"].lower(), match["host"].lower()
        port = int(match["port"] or _PORTS[scheme])
        path = (match["path"] or "").removesuffix("/").split("/")[1:]
        try:
            components = tuple(unquote(each, errors="strict") if each.isascii() else each for each in path)
        except UnicodeDecodeError:
            raise _unclear(url) from None
        if any(each in ("", ".", "..") or _AMBIGUOUS.search(each) for each in components) or set("?#") & set(url):
            raise _unclear(url)
        if scheme == "http" and not _LOOPBACK.fullmatch(host):
            raise Invalid(f"credentials for {host} would go over plain http", hint="use https://")
        return cls(scheme, host, port, components)

    def __str__(self) -> str:
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return "/".join((f"{self.scheme}://{self.host}{port}", *(quote(each, safe="") for each in self.path)))

    def covers(self, other: Place) -> bool:
        """Tell whether another place is this one, or lies below it."""
        return self[:3] == other[:3] and self.path == other.path[: len(self.path)]


class Credentials:
    """The credentials that a worker may give out, by the URLs they are for. May be used from any thread.

    Args:
        sources: For each URL (`https://git.example`, `https://git.example/team`) who is asked. Paths count by whole
            components; of several that fit, the longest counts.
        clock: Tells when what a source gave is about to end.

    Raises:
        Invalid: A URL is not plainly one of https, or of http on loopback, or is there twice.
    """

    def __init__(self, sources: Mapping[str, Source], clock: Clock) -> None:
        table = [(Place.parse(url), source) for url, source in sources.items()]
        if len({place for place, _ in table}) < len(table):
            raise Invalid("two sources of git credentials are for the same URL", hint="leave one of them out")
        table.sort(key=lambda entry: len(entry[0].path), reverse=True)
        self._table = [(place, source, threading.Lock()) for place, source in table]
        self._clock = clock
        self._kept: dict[Place, Credential] = {}

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs that there are credentials for, each in its one form, without a slash at its end."""
        return tuple(str(place) for place, *_ in self._table)

    def __bool__(self) -> bool:
        return bool(self._table)

    def ask(self, url: str) -> Credential | None:
        """Return what may be sent to a URL. Blocks as long as its source does.

        Args:
            url: What git wants to reach.

        Returns:
            `None` if it is not ours to answer, or its source has nothing for it.

        Raises:
            EverturnError: What the source raised, unless what it gave before still lasts. `Unavailable` if that was
                no error of ours; its text is left out, as it could tell a secret.
            Invalid: The source gave what cannot be sent.
        """
        asked = _place(url)
        entry = None if asked is None else self._entry(asked)
        if asked is None or entry is None:
            return None
        source, lock = entry
        with lock:
            return self._keeping(asked, source)

    def covers(self, url: str) -> bool:
        """Tell whether there is a source for a URL, without asking it."""
        asked = _place(url)
        return asked is not None and self._entry(asked) is not None

    def forget(self, url: str, password: str | None = None) -> None:
        """Ask the source again next time, because a host has refused what it gave.

        Args:
            url: Where it was refused.
            password: What was refused; what has been got since then is kept.
        """
        asked = _place(url)
        kept = None if asked is None else self._kept.get(asked)
        if asked is not None and kept is not None and password in (None, kept.password):
            self._kept.pop(asked, None)

    def _entry(self, asked: Place) -> tuple[Source, threading.Lock] | None:
        return next(((source, lock) for place, source, lock in self._table if place.covers(asked)), None)

    def _keeping(self, asked: Place, source: Source) -> Credential | None:
        kept = self._kept.get(asked)
        if kept is not None and self._lasts(kept):
            return kept
        try:
            found = _credential(source, str(asked))
        except EverturnError:
            if kept is not None and (kept.expires_at or 0) > self._clock.now():
                return kept
            raise
        self._kept.pop(asked, None)
        if found is not None and self._lasts(found):
            while len(self._kept) >= KEPT_URLS:  # an agent may ask for any path below its URL
                self._kept.pop(next(iter(self._kept), asked), None)
            self._kept[asked] = found
        return found

    def _lasts(self, credential: Credential) -> bool:
        return credential.expires_at is not None and credential.expires_at - EXPIRY_MARGIN_S > self._clock.now()


def from_env(name: str, read: Callable[[str], str | None]) -> Source:
    """Return a source that gives a token out of the environment of this process, read again at each use.

    Args:
        name: The variable.
        read: Reads a variable; `None` if there is none.
    """

    def ask(_: str) -> str:
        token = (read(name) or "").strip()
        if not token:
            raise Denied(f"the variable {name} has no git token in it", hint="set it for the worker")
        return token

    return ask


def from_file(path: Path) -> Source:
    """Return a source that gives the token in a file, read again at each use, without white space around it."""

    def ask(_: str) -> str:
        try:
            with path.open("rb") as file:
                data = file.read(TOKEN_LIMIT_BYTES + 1)
            token = data.decode("ascii").strip()
        except FileNotFoundError:
            raise NotFound(
                f"there is no file {path} with a git token", hint="put it there, or name another"
            ) from None
        except OSError as error:
            raise Denied(f"{path} cannot be read: {error.strerror}", hint="let the worker read it") from None
        except UnicodeDecodeError:
            token = ""
        if not token or len(data) > TOKEN_LIMIT_BYTES:
            raise Denied(f"{path} has no git token in it", hint="a token is one line of ASCII") from None
        return token

    return ask


def under_name(username: str, source: Source) -> Source:
    """Return a source that gives the tokens of another one under this name."""

    def ask(url: str) -> Credential | str | None:
        found = source(url)
        return Credential(username, found) if isinstance(found, str) else found

    return ask


def _credential(source: Source, url: str) -> Credential | None:
    try:
        found = source(url)
    except EverturnError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever a caller's function raises; its text may hold a secret
        raise Unavailable(
            f"the source of git credentials for {url} failed with {type(error).__name__}",
            hint="call it by hand to see why",
        ) from None
    if isinstance(found, str):
        return Credential(TOKEN_USERNAME, found)
    if found is not None and not isinstance(found, Credential):
        raise Invalid(
            f"the source of git credentials for {url} gave a {type(found).__name__}",
            hint="return a Credential, a token, or None",
        )
    return found


def _place(url: str) -> Place | None:
    try:
        return Place.parse(url)
    except Invalid:
        return None


def _unclear(url: str) -> Invalid:
    shown = re.sub(r"//.*@", "//…@", url, flags=re.DOTALL)  # a password may stand before the host, slashes in it too
    shown = re.sub(r"[?#].*", "…", shown, flags=re.DOTALL)  # and a token behind the path
    return Invalid(
        f"{shown!r} is no URL to keep git credentials for", hint="use https://host or https://host/path, nothing else"
    )
