"""One table of DynamoDB: single items, read and written under a condition, and the server's time of day.

boto3 tries nothing again here, we do: so we know when an answer was lost, and that a condition that fails then may
have met our own write.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import Any

from everturn.clock import Clock, Ids
from everturn.errors import Denied, EverturnError, Invalid, NotFound, Unavailable
from everturn.settings import Settings

KEY = "work"
WRITE_ID = "write_id"
EXPIRES_AT = "expires_at"

CONNECT_TIMEOUT_S = 2.0
READ_TIMEOUT_S = 5.0
TRYING_S = 8.0  # what begins by then may still take the two above
CREATING_S = 300.0
PAUSE_S = 0.1
LONGEST_PAUSE_S = 1.6
DATE_PRECISION_S = 1.0

Item = dict[str, Any]  # in DynamoDB's own form: {"epoch": {"N": "1"}}

_DENIED = (
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "UnrecognizedClientException",
)
_BUSY = (
    "InternalServerError",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "ReplicatedWriteConflictException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ThrottlingException",
    "TransactionConflictException",
    "TransactionInProgressException",
)


@dataclass(frozen=True, slots=True)
class Changed:
    """A write that was refused: something else is there than was seen.

    Attributes:
        item: What is there, or `None`.
    """

    item: Item | None


@dataclass(frozen=True, slots=True)
class _Heard:
    """A time of day that a server told: it was right between two moments of ours."""

    date: float
    sent: float
    received: float


class _Refused(Exception):
    """The condition of a write does not hold."""

    def __init__(self, item: Item | None) -> None:
        self.item = item


class Table:
    """A table whose partition key is `work`. For any number of threads; after a fork, make another.

    Args:
        name: Its name.
        make_client: Makes a boto3 client of DynamoDB.
        clock: Measures, and waits between two tries.
        ids: For jitter.
    """

    def __init__(self, name: str, make_client: Callable[[], Any], *, clock: Clock, ids: Ids) -> None:
        self.name = name
        self._make_client = make_client
        self._clock = clock
        self._ids = ids
        self._making = threading.Lock()
        self._client: Any = None
        self._heard: _Heard | None = None

    def now(self) -> tuple[float, float]:
        """Return the earliest and the latest that the server's time of day can be now.

        They lie apart by a second, as the server tells no fractions, and by the time that its answer took. Until it
        has told a time, it is this machine's.
        """
        heard = self._heard
        if heard is None:
            return self._clock.now(), self._clock.now()
        elapsed = self._clock.elapsed()
        return heard.date + elapsed - heard.received, heard.date + DATE_PRECISION_S + elapsed - heard.sent

    def deadline(self) -> float:
        """Return until when an operation that begins now goes on trying, by `Clock.elapsed`."""
        return self._clock.elapsed() + TRYING_S

    def read(self, key: str, deadline: float) -> Item | None:
        """Return an item, as it is after all writes that were acknowledged."""
        found: Item | None = self._ask("get_item", deadline, Key=_key(key), ConsistentRead=True).get("Item")
        return found

    def write(self, key: str, item: Item | None, seen: Item | None, deadline: float) -> Changed | None:
        """Put an item in the place of the one that was seen, or delete that.

        Args:
            key: Whose item it is.
            item: What is to be there, with a `write_id` of its own, or `None`.
            seen: What is expected there, or `None`.
            deadline: Until when to go on trying.

        Returns:
            What is there if it is not what was expected; `None` if it is written.
        """
        condition: dict[str, Any] = {
            "ConditionExpression": "attribute_not_exists(#name)",
            "ExpressionAttributeNames": {"#name": KEY},
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if seen is not None:
            condition["ConditionExpression"] = "#name = :seen"
            condition["ExpressionAttributeNames"] = {"#name": WRITE_ID}
            condition["ExpressionAttributeValues"] = {":seen": seen[WRITE_ID]}
        try:
            if item is None:
                self._ask("delete_item", deadline, Key=_key(key), **condition)
            else:
                self._ask("put_item", deadline, Item=item, **condition)
        except _Refused as refused:
            there = refused.item or self.read(key, deadline)
            return None if _is_ours(there, item) else Changed(there)
        return None

    def scan(self, deadline: float, **narrowed: Any) -> list[Item]:
        """Return all items. Each page may take until a deadline of its own.

        Args:
            deadline: Until when to go on trying for the first page.
            narrowed: Further arguments: a filter, a projection.
        """
        items: list[Item] = []
        start: dict[str, Any] = {}
        while True:
            page = self._ask("scan", deadline, ConsistentRead=True, **narrowed, **start)
            items += page["Items"]
            if "LastEvaluatedKey" not in page:
                return items
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
            deadline = self.deadline()

    def create(self) -> None:
        """Make the table: billed by request, and items that have expired are deleted by DynamoDB itself.

        Raises:
            Denied: The credentials do not allow it. The message says if the table is there all the same.
            Invalid: There is one of that name, or its name is wrong.
            Unavailable: It takes longer than five minutes, or DynamoDB does not answer.
        """
        how = {
            "KeySchema": [{"AttributeName": KEY, "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": KEY, "AttributeType": "S"}],
            "BillingMode": "PAY_PER_REQUEST",
        }
        try:
            self._ask_once("create_table", how)
        except Unavailable:
            with suppress(Invalid):  # the answer was lost, and the table that is there already is ours
                self._ask("create_table", self.deadline(), **how)
        latest = self._clock.elapsed() + CREATING_S
        while not self._is_active():
            if self._clock.elapsed() > latest:
                raise Unavailable(
                    f"the table {self.name} is still being made", hint="wait for it; TTL is not enabled yet"
                )
            self._clock.sleep(1.0)
        self._let_expire()

    def _let_expire(self) -> None:
        try:
            self._ask(
                "update_time_to_live",
                self.deadline(),
                TimeToLiveSpecification={"Enabled": True, "AttributeName": EXPIRES_AT},
            )
        except EverturnError as error:
            raise type(error)(
                f"the table {self.name} is made, but what has expired would stay: {error.message}",
                hint=f"enable TTL on the attribute {EXPIRES_AT}",
            ) from error

    def _is_active(self) -> bool:
        try:
            described = self._ask("describe_table", self.deadline())
        except NotFound:  # right after it was made, not all servers know of it
            return False
        return bool(described["Table"]["TableStatus"] == "ACTIVE")

    def _ask(self, operation: str, deadline: float, **arguments: Any) -> Any:
        """Make a request, again and again if need be; a write that takes effect twice is no different from one."""
        pause_s = PAUSE_S
        while True:
            try:
                return self._ask_once(operation, arguments)
            except Unavailable:
                waited_s = self._ids.jitter(pause_s)
                if self._clock.elapsed() + waited_s > deadline:
                    raise
                self._clock.sleep(waited_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _ask_once(self, operation: str, arguments: dict[str, Any]) -> Any:
        client = self._connected()
        sent = self._clock.elapsed()
        try:
            answer = getattr(client, operation)(TableName=self.name, **arguments)
        except Exception as error:
            response = getattr(error, "response", None) or {}  # of a lost connection, there is none
            self._hear(response, sent)
            if response.get("Error", {}).get("Code") == "ConditionalCheckFailedException":
                raise _Refused(response.get("Item")) from None
            translated = translate(error, self.name)
            if isinstance(translated, Denied):
                self._client = None  # it keeps the credentials that it found when it was made
            raise translated from error
        self._hear(answer, sent)
        return answer

    def _connected(self) -> Any:
        with self._making:
            if self._client is None:
                try:
                    self._client = self._make_client()
                except Exception as error:
                    raise translate(error, self.name) from error
            return self._client

    def _hear(self, answer: dict[str, Any], sent: float) -> None:
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        if date is None:
            return
        try:
            told = parsedate_to_datetime(date)
        except ValueError:
            return
        told = told if told.tzinfo else told.replace(tzinfo=UTC)
        self._heard = _Heard(told.timestamp(), sent, self._clock.elapsed())


def client_maker(region: str | None, settings: Settings | None) -> Callable[[], Any]:
    """Return what makes a boto3 client of DynamoDB.

    Args:
        region: Where the table is; the settings or, without them, boto3 know it otherwise.
        settings: Where AWS is, and whose credentials to use; boto3 knows it from the environment otherwise.

    Raises:
        Invalid: boto3 is not installed.
    """
    try:
        boto3, config = import_module("boto3"), import_module("botocore.config")
    except ImportError:
        raise Invalid(
            "a registry on DynamoDB needs boto3", hint="pip install 'everturn[aws]', or use sqlite:///…"
        ) from None
    options = config.Config(
        connect_timeout=CONNECT_TIMEOUT_S, read_timeout=READ_TIMEOUT_S, retries={"total_max_attempts": 1}
    )

    def make() -> Any:
        if settings is None:
            return boto3.Session(region_name=region).client("dynamodb", config=options)
        session = boto3.Session(profile_name=settings.aws_profile, region_name=region or settings.aws_region)
        endpoint = settings.aws_endpoint_url_dynamodb or settings.aws_endpoint_url
        return session.client("dynamodb", endpoint_url=endpoint, config=options)

    return make


def translate(error: Exception, table: str) -> EverturnError:
    """Return the error of ours that says what went wrong. What could hold a secret is left out of it: addresses,
    and what is said of signatures."""
    errors = import_module("botocore.exceptions")
    kind = type(error).__name__
    if isinstance(error, errors.ClientError):
        return _refused(error, table)
    if isinstance(error, errors.NoRegionError):
        return Invalid(
            f"the region of the table {table} is not known", hint="use dynamodb://table?region=…, or set AWS_REGION"
        )
    if isinstance(error, errors.ProfileNotFound | errors.ParamValidationError | errors.InvalidRegionError):
        return Invalid(f"the table {table} cannot be used: {error}", hint="check the registry's URL and AWS_PROFILE")
    if isinstance(error, ValueError):
        return Invalid(f"the table {table} cannot be used: {kind}", hint="check AWS_ENDPOINT_URL and AWS_REGION")
    if any(sign in kind for sign in ("Credential", "Token", "Login", "SSO")):
        return Denied(
            f"there are no credentials for the table {table}: {kind}",
            hint="give the worker AWS credentials, or a profile in AWS_PROFILE",
        )
    return Unavailable(
        f"the table {table} did not answer: {kind}",
        hint="check that DynamoDB can be reached, and AWS_ENDPOINT_URL; it is safe to try again",
    )


def _refused(error: Any, table: str) -> EverturnError:
    answer = error.response.get("Error", {})
    code, message = str(answer.get("Code", "")), str(answer.get("Message") or answer.get("message") or "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "ResourceNotFoundException":
        return NotFound(
            f"there is no table {table}",
            hint="check its name, the region and AWS_ENDPOINT_URL, or make it (docs/registry.md)",
        )
    if code in _DENIED or status in (401, 403):
        return _denied(code, message, table)
    if code in _BUSY or status >= 500 or status == 429:
        return Unavailable(f"the table {table} is not ready: {code or status}", hint="it is safe to try again")
    if code == "ResourceInUseException":
        return Invalid(f"there is a table {table} already", hint="use it, or choose another name")
    return Invalid(
        f"the table {table} refuses: {code}: {message}",
        hint=f"its partition key has to be the text {KEY}, with no sort key; values have up to 2048 bytes there",
    )


def _denied(code: str, message: str, table: str) -> Denied:
    if "Signature expired" in message or "Signature not yet current" in message:
        return Denied(
            f"the clock is too far off for the table {table}: {code}", hint="set this machine's clock right"
        )
    said = f"{code}: {message}" if code == "AccessDeniedException" else code
    return Denied(
        f"not allowed to use the table {table}: {said}",
        hint="check the credentials, and that they allow GetItem, PutItem, DeleteItem and Scan on the table",
    )


def _key(key: str) -> Item:
    return {KEY: {"S": key}}


def _is_ours(there: Item | None, item: Item | None) -> bool:
    """An answer was lost, and the write met itself. What was to go and is gone need not have been our doing."""
    if there is None or item is None:
        return there is item
    return bool(there.get(WRITE_ID) == item[WRITE_ID])
