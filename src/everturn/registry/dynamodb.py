"""A registry in a table of DynamoDB, for a fleet.

Leases and ages are measured by the server's time of day, so no worker's clock matters: a claim that is written ends
no earlier than its holder thinks, and one that is read is thought to end no earlier than it does.

A change is one write, under the condition that the item is still the one that was seen; a claim reads it first. What
a worker wrote last is remembered while it holds a claim, so that a renewal is one request. If the item has changed
since, the write is refused and the rules decide again.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ceil
from typing import Any, Generic, TypeVar

from everturn.clock import Clock, Ids
from everturn.errors import Corrupt, EverturnError, Invalid, Unavailable
from everturn.model import SessionAges, SessionRecord
from everturn.registry.rows import Decide, RowRegistry, no_unicode
from everturn.registry.rules import Row
from everturn.registry.table import EXPIRES_AT, KEY, WRITE_ID, Item, Table, client_maker
from everturn.settings import Settings
from everturn.telemetry import Metrics

VERSION = 1
MOST_ATTEMPTS = 20
TTL_MARGIN_S = 7 * 24 * 3600.0

_REQUIRED = ("session_id", "worker", "store", "run_id", "host", "created_at", "last_used_at")
_OPTIONAL = ("cwd", "agent", "tainted", "held_until")

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Done(Generic[Result]):
    """The end of an operation."""

    result: Result


@dataclass(frozen=True, slots=True)
class _Again:
    """It has to be decided again, by what is there now."""

    item: Item | None


class DynamoDbRegistry(RowRegistry):
    """A `Registry` in a table of DynamoDB. For any number of threads; after a fork, make another.

    Args:
        table: The table's name.
        region: Where it is; the settings know it otherwise.
        settings: Where AWS is, and whose credentials to use; boto3 knows it from the environment otherwise.
        client: A boto3 client of DynamoDB that tries nothing twice, to use instead of one of our own.
        ages: How old sessions may get; for ever if not given.
        clock: Measures.
        ids: Makes session ids and tokens.
        metrics: Where dropped sessions are counted.

    Raises:
        Invalid: boto3 is not installed.
    """

    def __init__(
        self,
        table: str,
        *,
        region: str | None = None,
        settings: Settings | None = None,
        client: Any = None,
        ages: SessionAges | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        super().__init__(ages=ages, clock=clock, ids=ids, metrics=metrics)
        make_client = client_maker(region, settings) if client is None else lambda: client
        self._table = Table(table, make_client, clock=self._clock, ids=self._ids)
        self._mine: dict[str, Item] = {}

    def create_table(self) -> None:
        """Make the table, and wait until it can be used.

        Raises:
            Invalid: There is one of that name.
            Unavailable: It takes longer than five minutes, or DynamoDB does not answer.
        """
        self._table.create()

    def _change(self, key: str, decide: Decide[Result]) -> Result:
        deadline = self._table.deadline()
        guess = self._mine.get(key)
        attempt = _Again(guess if guess is not None else self._table.read(key, deadline))
        certain = guess is None
        for _ in range(MOST_ATTEMPTS):
            outcome = self._attempt(key, attempt.item, decide, certain=certain, deadline=deadline)
            if isinstance(outcome, _Done):
                return outcome.result
            attempt, certain = outcome, True
        raise Unavailable(f"too many workers ask for {key} at once", hint="try again")

    def _attempt(
        self, key: str, item: Item | None, decide: Decide[Result], *, certain: bool, deadline: float
    ) -> _Done[Result] | _Again:
        """Decide and write, or say what is there instead. What is not certain is good enough to write upon, as the
        write says so if it is wrong, and for nothing else."""
        earliest, latest = self._table.now()
        before = None if item is None else self._row(item, earliest)
        try:
            after, result = decide(before, latest)
        except EverturnError:
            if certain:
                self._remember(key, None)
                raise
            return _Again(self._table.read(key, deadline))
        if after == before:
            if not certain:
                return _Again(self._table.read(key, deadline))
            if key in self._mine:
                self._remember(key, item)
            return _Done(result)
        written = None if after is None else self._item(after)
        changed = self._table.write(key, written, item, deadline)
        if changed is not None:
            return _Again(changed.item)
        self._remember(key, written if after is not None and after.left_s is not None else None)
        return _Done(result)

    def _remember(self, key: str, item: Item | None) -> None:
        if item is None:
            self._mine.pop(key, None)
        else:
            self._mine[key] = item

    def _rows(self) -> list[Row]:
        items = self._table.scan(self._table.deadline())
        earliest, _ = self._table.now()
        return sorted((self._row(item, earliest) for item in items), key=lambda row: row.record.work_key)

    def _key_of(self, session_id: str) -> str | None:
        found = self._table.scan(
            self._table.deadline(),
            FilterExpression="#session = :session",
            ProjectionExpression="#work",
            ExpressionAttributeNames={"#session": "session_id", "#work": KEY},
            ExpressionAttributeValues={":session": {"S": session_id}},
        )
        return found[0][KEY]["S"] if found else None

    def _item(self, row: Row) -> Item:
        record = row.record
        values = {field.name: getattr(record, field.name) for field in fields(record)}
        values[KEY] = values.pop("work_key")
        values |= {"token": row.token, "in_use": row.in_use, WRITE_ID: self._ids.token(), "version": VERSION}
        limit_s = self._limit_s(row)
        if limit_s is not None:
            last = max(record.last_used_at + limit_s, record.held_until or 0.0)
            values[EXPIRES_AT] = ceil(last + TTL_MARGIN_S)
        try:
            return {name: _typed(value) for name, value in values.items() if value is not None}
        except UnicodeEncodeError as error:
            raise no_unicode(error) from None

    def _row(self, item: Item, now: float) -> Row:
        try:
            values = {name: _plain(value) for name, value in item.items()}
            if values["version"] > VERSION:
                raise Invalid(
                    f"the table {self._table.name} is used by a newer release", hint="use a newer release of Everturn"
                )
            given: dict[str, Any] = {name: values[name] for name in _REQUIRED}
            given |= {name: values.get(name) for name in _OPTIONAL}
            record = SessionRecord(work_key=values[KEY], epoch=int(values["epoch"]), **given)
            return Row(
                record,
                token=values["token"],
                in_use=values["in_use"],
                unused_s=max(0.0, now - record.last_used_at),
                left_s=None if record.held_until is None else record.held_until - now,
            )
        except (KeyError, TypeError, ValueError) as error:
            name = item.get(KEY, {}).get("S", "an item")
            raise Corrupt(
                f"{name} in the table {self._table.name} is not as it was written: {error!r}",
                hint="restore the item from a backup, or delete it",
            ) from None


def _typed(value: str | float | bool) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"BOOL": value}
    return {"S": value.encode().decode()} if isinstance(value, str) else {"N": repr(value)}


def _plain(value: dict[str, Any]) -> Any:
    ((kind, plain),) = value.items()
    return float(plain) if kind == "N" else plain
