"""From a URL to a registry."""

from __future__ import annotations

from pathlib import Path

from everturn.errors import Invalid
from everturn.model import SessionAges
from everturn.registry.base import Registry
from everturn.registry.sqlite import SqliteRegistry


def open_registry(url: str, *, ages: SessionAges | None = None) -> Registry:
    """Return the registry behind a URL. Nothing is read or written yet.

    Args:
        url: `sqlite:///absolute/path.db`.
        ages: How old sessions may get; for ever if not given. `Settings.session_ages` has what is set.

    Raises:
        Invalid: It is another kind of URL.
    """
    scheme, separator, path = url.partition("://")
    if scheme != "sqlite" or not separator or not path.startswith("/"):
        raise Invalid(f"cannot make a registry of {url!r}", hint="use sqlite:///absolute/path.db")
    return SqliteRegistry(Path(path), ages=ages)
