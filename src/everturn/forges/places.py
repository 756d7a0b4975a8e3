"""One name for the many ways in which the URL of a repository is spelled."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from everturn.model import repository_name

_PORTS = {"https": 443, "http": 80, "ssh": 22, "git+ssh": 22, "ssh+git": 22, "git": 9418}
# What git takes for host:path. One letter before the colon is a drive, and a slash before it makes it a path.
_SCP = re.compile(r"(?:[^@/:\[\]]+@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^@/:\[\]]{2,}):(?!//)(?P<path>.+)", re.DOTALL)


def same_repository(a: str, b: str) -> bool:
    """Return whether two texts name the same repository, however it is reached.

    Args:
        a: A URL, or a path.
        b: Another one.
    """
    return place_of(a) == place_of(b)


def place_of(url: str) -> str:
    """Return `host/path`, in small letters, for what names a repository at a forge.

    `https://`, `http://`, `ssh://`, `git://` and `user@host:path` come to the same, with or without `.git`, a slash
    at the end, a user, or the port that the scheme has anyway. Another port stays: a forge may have neighbours on its
    host. Letter case makes no difference, as it makes none to the forges.

    Args:
        url: Any text. One that names nothing at a host, such as a path, comes back as `model.repository_name` has it.
    """
    if url.isprintable() and " " not in url:
        found = _of_url(url) if "://" in url else _of_scp(url)
        if found is not None:
            return found
    try:
        return repository_name(url)
    except ValueError:  # it looks like a URL, and is none
        return url


def _of_url(url: str) -> str | None:
    try:
        pieces = urlsplit(url)
        port = pieces.port
    except ValueError:
        return None
    if pieces.scheme not in _PORTS or not pieces.hostname:
        return None
    usual = port is None or port == _PORTS[pieces.scheme]
    return _joined(pieces.hostname if usual else f"{pieces.hostname}:{port}", pieces.path)


def _of_scp(text: str) -> str | None:
    found = _SCP.fullmatch(text)
    return _joined(found["host"].strip("[]"), found["path"]) if found else None


def _joined(host: str, path: str) -> str | None:
    path = path.strip("/").removesuffix(".git").rstrip("/")
    return f"{host.rstrip('.')}/{path}".lower() if path else None
