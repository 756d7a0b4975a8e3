"""Sessions of the SDK's reference adapters for PostgreSQL: a row an entry, in the order of a `bigserial`.

That of the Python SDK orders by `seq`, and the main transcript's `subpath` is empty; that of the TypeScript SDK
orders by `id`, and it is NULL. Both are read, each from the table that its adapter names unless it is told another.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from everturn.errors import Conflict, Denied, EverturnError, Invalid, NotFound, Unavailable
from everturn.settings import Settings
from everturn.upkeep.sources.base import Line, grouped, label_of, split_url

TABLES = ("claude_session_store", "claude_session_entries")
ORDERS = ("seq", "id")
COLUMNS = {"project_key", "session_id", "subpath", "entry"}

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")
_REFUSED = re.compile(r"authentication failed|no password supplied|permission denied|no pg_hba\.conf entry")
_WHO = re.compile(r'\b(user|role) "[^"]*"')  # the server names who it refuses; our messages do not
_READ_ONLY = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
_COLUMNS_OF = """
SELECT attname FROM pg_catalog.pg_attribute
WHERE attrelid = pg_catalog.to_regclass(%s) AND attnum > 0 AND NOT attisdropped
"""
_SESSIONS = "SELECT DISTINCT project_key, session_id FROM {table} ORDER BY project_key, session_id"
_ROWS = """
SELECT coalesce(subpath, ''), {order}, entry::text FROM {table}
WHERE project_key = %s AND session_id = %s ORDER BY coalesce(subpath, ''), {order}
"""


class PostgresRows:
    """The sessions in a table.

    Args:
        url: `postgresql://…`, as libpq reads it, with what `PG*` variables and `~/.pgpass` say; `?table=` is the
            adapter's.
        settings: How patient to be.

    Raises:
        Invalid: The client is not installed, cannot read the URL, or the table is none of an adapter.
        NotFound: There is no such table.
        Denied: The credentials were refused.
        Unavailable: The server does not answer.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        url, given = split_url(url, "table")
        self.label = label_of(url)
        self._lock = threading.Lock()  # a connection has one transaction at a time
        self._client = _client(self.label)
        with self._asking():
            self._connection = self._client.connect(
                url, autocommit=True, client_encoding="UTF8", **_patience(url, settings)
            )
        try:
            with self._asking():
                table, order = self._table(given.get("table"))
        except BaseException:
            self._connection.close()
            raise
        self.label += f"?table={table}"
        sql = self._client.sql
        parts = {"table": sql.Identifier(*table.split(".")), "order": sql.Identifier(order)}
        self._sessions, self._rows = sql.SQL(_SESSIONS).format(**parts), sql.SQL(_ROWS).format(**parts)
        self._where = f"the table {table}"

    def names(self) -> list[tuple[str, str]]:
        """See `Source.names`. One query, over the table's primary key."""
        return [(project, session) for project, session in self._ask(self._sessions)]

    def logs(self, project_key: str, session_id: str) -> dict[str | None, list[Line]]:
        """See `Source.logs`. One query: all of it as it was at one moment."""
        rows = self._ask(self._rows, project_key, session_id)
        return grouped((subpath or None, Line(self._where, number, text.encode())) for subpath, number, text in rows)

    def _ask(self, query: Any, *values: str) -> Sequence[Any]:
        with self._lock, self._asking(), self._connection.transaction():
            self._connection.execute(_READ_ONLY)
            found: Sequence[Any] = self._connection.execute(query, values).fetchall()
            return found

    def _table(self, given: str | None) -> tuple[str, str]:
        """Return the table's name, as the server has it, and the column that orders it."""
        if given is not None and not _NAME.fullmatch(given):
            raise Invalid(f"{given!r} is no name of a table", hint="use ?table=name or ?table=schema.name")
        named = (given.lower(),) if given else TABLES  # the adapters do not quote it, so the server has it so
        found = {name: columns for name in named if (columns := self._columns(name))}
        if len(found) > 1:
            raise Conflict(f"{self.label} has {' and '.join(found)}", hint="say which one: ?table=…")
        if not found:
            raise NotFound(f"{self.label} has no table {' or '.join(named)}", hint="name the adapter's: ?table=…")
        ((name, columns),) = found.items()
        order = next((each for each in ORDERS if each in columns), None)
        if order is None or not columns >= COLUMNS:
            raise Invalid(f"the table {name} is no session store's", hint="name the adapter's: ?table=…")
        return name, order

    def _columns(self, name: str) -> set[str]:
        quoted = ".".join(f'"{each}"' for each in name.split("."))
        return {column for (column,) in self._connection.execute(_COLUMNS_OF, (quoted,)).fetchall()}

    def close(self) -> None:
        """See `Source.close`."""
        self._connection.close()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except self._client.Error as error:
            raise _translated(error, self._client, self.label) from None


def _client(label: str) -> Any:
    try:
        client = import_module("psycopg")
        import_module("psycopg.sql")
    except ImportError:
        raise Invalid(f"reading {label} needs psycopg", hint="pip install 'everturn[postgres]'") from None
    return client


def _patience(url: str, settings: Settings) -> dict[str, int]:
    return {} if "connect_timeout=" in url else {"connect_timeout": max(2, round(settings.request_timeout_s))}


def _translated(error: Exception, client: Any, label: str) -> EverturnError:
    reason = _WHO.sub(r"this \1", str(error).partition("\n")[0])
    if isinstance(error, client.errors.InsufficientPrivilege) or _REFUSED.search(str(error)):
        return Denied(f"{label} refuses these credentials: {reason}", hint="they need SELECT on the table, no more")
    if isinstance(error, client.ProgrammingError) and getattr(error, "sqlstate", None) is None:
        return Invalid(f"the URL of {label} cannot be used", hint="use postgresql://host/database?table=…")
    if isinstance(error, client.OperationalError):
        return Unavailable(f"{label} does not answer: {reason}", hint="check the address; it is safe to try again")
    return Invalid(f"{label} cannot be read: {reason}", hint="is it the adapter's? check ?table=")
