"""From a URL to a registry."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs

from everturn.errors import Invalid
from everturn.model import SessionAges, shown_url
from everturn.registry.base import Registry
from everturn.registry.dynamodb import DynamoDbRegistry
from everturn.registry.sqlite import SqliteRegistry
from everturn.settings import Settings

_TABLE = re.compile(r"([A-Za-z0-9_.-]{3,255})/?(?:\?(.*))?")


def open_registry(url: str, *, ages: SessionAges | None = None, settings: Settings | None = None) -> Registry:
    """Return the registry behind a URL. Nothing is read or written yet.

    Args:
        url: `sqlite:///absolute/path.db` or `dynamodb://table?region=eu-west-1`.
        ages: How old sessions may get; for ever if not given. `Settings.session_ages` has what is set.
        settings: Where AWS is, and whose credentials to use; boto3 knows it from the environment otherwise.

    Raises:
        Invalid: It is another kind of URL, or boto3 is needed and not installed.
    """
    scheme, separator, rest = url.partition("://")
    if scheme == "sqlite" and separator and rest.startswith("/"):
        return SqliteRegistry(Path(rest), ages=ages)
    if scheme == "dynamodb" and (named := _TABLE.fullmatch(rest)):
        return DynamoDbRegistry(named[1], region=_region(url, named[2] or ""), settings=settings, ages=ages)
    raise Invalid(
        f"cannot make a registry of {shown_url(url)!r}",
        hint="use sqlite:///absolute/path.db, or dynamodb://table?region=eu-west-1",
    )


def table_name(url: str) -> str | None:
    """Return the name of the DynamoDB table behind a registry's URL, or `None` if it is none of a table."""
    scheme, _, rest = url.partition("://")
    named = _TABLE.fullmatch(rest) if scheme == "dynamodb" else None
    return named[1] if named else None


def _region(url: str, query: str) -> str | None:
    given = parse_qs(query, keep_blank_values=True)
    (region, *more) = given.pop("region", [None])
    if given or more or region == "":
        raise Invalid(f"cannot make a registry of {shown_url(url)!r}", hint="the table's one option is ?region=…")
    return region
