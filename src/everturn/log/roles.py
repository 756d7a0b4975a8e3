"""Credentials for one scope alone: a role assumed with session tags and a session policy (docs/credentials.md).

They are asked for before a request is made, renewed while the old ones last, and never replaced by others: if they
cannot be had, the request is not made.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib import import_module
from typing import Any, Protocol

from everturn.clock import Clock, SystemClock
from everturn.errors import Denied, EverturnError, Invalid, Unavailable
from everturn.log.names import escape
from everturn.settings import Settings
from everturn.telemetry import get_logger

DURATION_S = 3600  # every role allows that much, and one role that assumes another gets no more
RENEWED_IN_LAST = 0.25  # of their time
SPARE_S = 60.0  # longer than any request: what begins with credentials has to end with them
RETRY_S = 15.0
FAILURE_LASTS_S = 1.0  # for threads that waited for an attempt that failed
MAX_POLICY_CHARS = 2048
MAX_TAG_CHARS = 256
MAX_NAME_CHARS = 64

Statement = dict[str, Any]

GET, PUT, DELETE, PREFIX = "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:prefix"
GATE = "format.json"
_EVERY = "ForAllValues:StringEquals"

# What a run does below each folder of its scope (docs/format.md, section 1).
WRITTEN = ("sessions", "homes", "summaries", "catalogs", "journal", "damaged")
ADDED = ("traces",)
READ = ("holds",)

_ROLE = re.compile(r"arn:(aws[a-z-]*):iam::\d{12}:role/[\w+=,.@/-]+", re.ASCII)
BUCKET_NAME = re.compile(r"[A-Za-z0-9._-]+")
_PREFIX = re.compile(r"[\w./!'()@:+=,&; -]*", re.ASCII)  # what means itself to IAM, and stays as it is in keys
_PLAIN_TASK = re.compile(r"task:([a-z0-9._-]+)", re.ASCII)  # the folder of such a scope is task!3a<id>
_TAG_LITERAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:/+-@")
_EPOCH = datetime.fromtimestamp(0, UTC)
_INVALID_CODES = (
    "ValidationError",
    "MalformedPolicyDocument",
    "PackedPolicyTooLarge",
    "InvalidParameterValue",
    "InvalidAction",
    "RegionDisabledException",
)
_THROTTLED_CODES = ("Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException")


@dataclass(frozen=True, slots=True)
class Assignment:
    """Whose work credentials are for. All of it becomes session tags.

    Args:
        scope: The scope of the transcripts; a run's is its work item's key.
        agent: The agent's name.
        repo: The repository.
    """

    scope: str
    agent: str | None = None
    repo: str | None = None

    def tags(self) -> list[dict[str, str]]:
        """Return the session tags, as STS takes them.

        `everturn-task-id` is there only if it is a name's part in the store as it stands, so that a role's own policy
        can name folders and rows with it.
        """
        plain = _PLAIN_TASK.fullmatch(self.scope)
        values = {
            "everturn-task": self.scope,
            "everturn-task-id": plain[1] if plain else None,
            "everturn-agent": self.agent,
            "everturn-repo": self.repo,
        }
        return [{"Key": key, "Value": tag_value(value)} for key, value in values.items() if value]

    def session_name(self) -> str:
        """Return a name for the session that people recognise and that no other scope has."""
        digest = sha256(self.scope.encode()).hexdigest()[:8]
        readable = re.sub(r"[^\w+=,.@-]+", "-", self.scope, flags=re.ASCII).strip("-")
        room = MAX_NAME_CHARS - len(f"everturn--{digest}")
        return f"everturn-{readable[:room]}-{digest}"


class Sts(Protocol):
    """What is asked of the Security Token Service; boto3's client does it."""

    def assume_role(self, **request: Any) -> Any:
        """Return a response with `Credentials`."""


@dataclass(frozen=True, slots=True)
class _Held:
    """Credentials in hand. Times are those of `Clock.elapsed`."""

    renew_at: float
    ends_at: float
    access_key_id: str
    secret_access_key: str = field(repr=False)
    token: str = field(repr=False)


class SessionRole:
    """The role that is assumed for each scope of one store.

    Args:
        settings: The role's ARN, and how AWS is reached.
        bucket: The store's bucket.
        prefix: The store's prefix in it; may be empty.
        clock: For tests.
        make_sts: For tests.

    Raises:
        Invalid: `session_role` is no ARN of a role, bucket or prefix cannot stand in a policy, or boto3 is not
            installed.
    """

    def __init__(
        self,
        settings: Settings,
        bucket: str,
        prefix: str,
        *,
        clock: Clock | None = None,
        make_sts: Callable[[], Sts] | None = None,
    ) -> None:
        self.arn = settings.session_role or ""
        match = _ROLE.fullmatch(self.arn)
        if match is None:
            raise Invalid(
                f"session_role is {self.arn!r}, which is no ARN of a role",
                hint="it looks like arn:aws:iam::123456789012:role/name",
            )
        if not BUCKET_NAME.fullmatch(bucket):  # what stands there may hold a secret, so it is not shown
            raise Invalid("the store's URL has no name of a bucket", hint="use s3://bucket/prefix")
        if not _PREFIX.fullmatch(prefix):
            raise Invalid(
                f"the prefix {prefix!r} has a character that a session policy cannot tell apart",
                hint="use letters, digits, - _ . and / in the store's URL",
            )
        self.clock = clock or SystemClock()
        self._partition = match[1]
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._kms_key = settings.s3_sse_kms_key or "alias/aws/s3" if _uses_kms(settings) else None
        self.region = settings.aws_region
        if make_sts is None:
            make_sts, self.region = _client_maker(settings)
        self._make_sts = make_sts
        self._sts: Sts | None = None
        self._making = threading.Lock()

    def credentials(self, assignment: Assignment) -> RoleCredentials:
        """Return credentials that reach one scope. Nothing is asked for yet.

        Raises:
            Invalid: The scope is no usable name, or too long for a policy.
        """
        return RoleCredentials(self, assignment, self.policy(assignment.scope))

    def policy(self, scope: str, table: str | None = None) -> str:
        """Return the session policy for a scope: what a run does in the bucket, and nothing else.

        Args:
            scope: The scope.
            table: A registry's table in DynamoDB, whose row of the scope is allowed, too.

        Raises:
            Invalid: It is longer than STS takes.
        """
        segment = escape(scope, "scope")
        for statements in (self._by_folder(segment), self._by_place(segment)):
            policy = json.dumps(
                {"Version": "2012-10-17", "Statement": statements + self._encryption() + self._row(scope, table)},
                separators=(",", ":"),
            )
            if len(policy) <= MAX_POLICY_CHARS:
                return policy
        raise Invalid(
            f"the session policy for {scope} would take {len(policy)} characters, and {MAX_POLICY_CHARS} is the"
            " most that AWS takes",
            hint="use a task with a shorter id, or a shorter prefix in the store's URL",
        )

    def assume(self, assignment: Assignment, policy: str) -> Any:
        """Ask for credentials, once, and return what STS says of them.

        Raises:
            Denied: The role may not be assumed, or there are no credentials to ask with.
            Invalid: STS does not take the request.
            Unavailable: STS did not answer.
        """
        try:
            with self._making:
                sts = self._sts = self._sts or self._make_sts()
            response = sts.assume_role(
                RoleArn=self.arn,
                RoleSessionName=assignment.session_name(),
                DurationSeconds=DURATION_S,
                Policy=policy,
                Tags=assignment.tags(),
            )
            return response["Credentials"]
        except Exception as error:
            self._sts = None  # it keeps the credentials that it found when it was made, or that it found none
            raise _translated(error, self.arn) from error

    def _by_folder(self, segment: str) -> list[Statement]:
        """Name each folder of the scope."""

        def objects(*folders: str) -> list[str]:
            return [self._arn(f"{folder}/{segment}/*") for folder in folders]

        listed = [f"{self._prefix}{folder}/{segment}/*" for folder in (*WRITTEN, *ADDED, *READ)]
        return [
            _allow([GET, PUT, DELETE], [*objects(*WRITTEN), self._probe(segment)]),
            _allow([GET, PUT], objects(*ADDED)),
            _allow([GET], [*objects(*READ), self._arn(GATE)]),
            self._listing([*listed, self._prefix + GATE]),
        ]

    def _by_place(self, segment: str) -> list[Statement]:
        """Name the scope fewer times: it stands in second place, behind whatever folder, and nowhere else.

        A wildcard of IAM matches slashes, too, so what has the scope's name in a later place is denied: there it is
        the name of something in another scope.
        """
        second, later = f"*/{segment}/*", f"*/*/{segment}/*"
        listing = self._listing([self._prefix + second, self._prefix + GATE])
        listing["Condition"]["StringNotLike"] = {PREFIX: self._prefix + later}
        return [
            _allow([GET, PUT, DELETE], [self._arn(second), self._probe(segment)]),
            _deny(["s3:*"], [self._arn(later)]),
            _deny([DELETE], [self._arn(f"{folder}/*") for folder in (*ADDED, *READ)]),
            _deny([PUT], [self._arn(f"{folder}/*") for folder in READ]),
            _allow([GET], [self._arn(GATE)]),
            listing,
        ]

    def _listing(self, prefixes: list[str]) -> Statement:
        """Allow to list, which is also what makes S3 say of an object that it is not there, rather than nothing."""
        return _allow(["s3:ListBucket"], [self._arn()], {"StringLike": {PREFIX: prefixes}})

    def _probe(self, segment: str) -> str:
        return self._arn(f"probes/{segment}.json")

    def _arn(self, path: str | None = None) -> str:
        bucket = f"arn:{self._partition}:s3:::{self._bucket}"
        return bucket if path is None else f"{bucket}/{self._prefix}{path}"

    def _encryption(self) -> list[Statement]:
        """Allow the use of one KMS key, if the store encrypts with one."""
        key = self._kms_key
        if key is None:
            return []
        actions = ["kms:GenerateDataKey", "kms:Decrypt"]
        any_key = f"arn:{self._partition}:kms:*:*:key/"
        name = key.rpartition(":")[2] if key.startswith("arn:") else key
        if name.startswith("alias/"):  # an alias names a key, but is none: IAM knows it as a condition only
            return [_allow(actions, [f"{any_key}*"], {"ForAnyValue:StringEquals": {"kms:ResourceAliases": name}})]
        return [_allow(actions, [key if key.startswith("arn:") else any_key + key])]

    def _row(self, scope: str, table: str | None) -> list[Statement]:
        """Allow what a run does with its row of the registry. Where the table is, the role's own policy says."""
        if table is None:
            return []
        own = {"dynamodb:LeadingKeys": scope.replace("$", "${$}")}  # it would begin a variable
        arn = f"arn:{self._partition}:dynamodb:*:*:table/{table}"
        return [_allow([f"dynamodb:{act}Item" for act in ("Get", "Put", "Delete")], [arn], {_EVERY: own})]


class RoleCredentials:
    """The credentials of one scope, asked for when they are needed and renewed well before they end.

    It is what obstore calls for credentials, too. It is told that they have ended already, so that it asks again
    for each request and never has old ones.

    Args:
        role: The role.
        assignment: Whose work they are for.
        policy: The session policy.

    Attributes:
        config: What obstore asks for, too: the region, if it is known.
    """

    def __init__(self, role: SessionRole, assignment: Assignment, policy: str) -> None:
        self.config = {"region": role.region} if role.region else {}
        self._role = role
        self._assignment = assignment
        self._policy = policy
        self._clock = role.clock
        self._asking = threading.Lock()
        self._held: _Held | None = None
        self._failure: tuple[float, EverturnError] | None = None
        self._log = get_logger()

    def __call__(self) -> dict[str, Any]:
        """Return the credentials in obstore's form. Raises as `renew` does."""
        held = self._current()
        return {
            "access_key_id": held.access_key_id,
            "secret_access_key": held.secret_access_key,
            "token": held.token,
            "expires_at": _EPOCH,
        }

    def renew(self) -> None:
        """Make sure that there are credentials that last as long as a request.

        Raises:
            Denied: The role may not be assumed, or there are no credentials to ask with.
            Invalid: STS does not take the request.
            Unavailable: STS did not answer.
        """
        self._current()

    def _current(self) -> _Held:
        held, now = self._held, self._clock.elapsed()
        if held is not None and now < held.renew_at:
            return held
        usable = held is not None and now < held.ends_at
        if not self._asking.acquire(blocking=not usable):
            assert held is not None
            return held  # somebody else is renewing them, and these will do
        try:
            return self._renewed()
        finally:
            self._asking.release()

    def _renewed(self) -> _Held:
        held, now = self._held, self._clock.elapsed()
        if held is not None and now < held.renew_at:
            return held  # somebody else has renewed them meanwhile
        if self._failure is not None and now - self._failure[0] < FAILURE_LASTS_S:
            error = self._failure[1]
            raise type(error)(error.message, hint=error.hint)
        try:
            self._held = self._ask()
        except EverturnError as error:
            now = self._clock.elapsed()
            if held is None or now >= held.ends_at:
                self._failure = now, error
                raise
            self._held = replace(held, renew_at=min(now + RETRY_S, held.ends_at))
            self._log.warning(
                "role_renewal_failed",
                task_id=self._assignment.scope,
                role=self._role.arn,
                left_s=round(held.ends_at - now),
                error=error.message,
            )
        return self._held

    def _ask(self) -> _Held:
        began = self._clock.elapsed()
        given = self._role.assume(self._assignment, self._policy)
        # Ours is the clock that does not jump; theirs is right if they give less than was asked for.
        lasts_s = min(DURATION_S, given["Expiration"].timestamp() - self._clock.now())
        if lasts_s <= SPARE_S:
            raise Unavailable(
                f"the credentials for {self._assignment.scope} end as soon as they are given",
                hint="set this machine's clock right",
            )
        self._log.info("role_assumed", task_id=self._assignment.scope, role=self._role.arn, seconds=round(lasts_s))
        return _Held(
            renew_at=began + lasts_s * (1 - RENEWED_IN_LAST),
            ends_at=began + lasts_s - SPARE_S,
            access_key_id=given["AccessKeyId"],
            secret_access_key=given["SecretAccessKey"],
            token=given["SessionToken"],
        )


def tag_value(text: str) -> str:
    """Spell any text with the characters that a session tag takes.

    `=` and two hexadecimal digits stand for a byte of another character. What is too long for a tag is cut, and
    ends in `==` and its SHA-256.
    """
    spelled = "".join(
        char if char in _TAG_LITERAL else "".join(f"={byte:02x}" for byte in char.encode()) for char in text
    )
    if len(spelled) <= MAX_TAG_CHARS:
        return spelled
    end = "==" + sha256(text.encode()).hexdigest()
    return spelled[: MAX_TAG_CHARS - len(end)] + end


def _allow(actions: list[str], resources: list[str], condition: dict[str, Any] | None = None) -> Statement:
    statement = {"Effect": "Allow", "Action": _few(actions), "Resource": _few(resources)}
    return statement if condition is None else {**statement, "Condition": condition}


def _deny(actions: list[str], resources: list[str]) -> Statement:
    return {**_allow(actions, resources), "Effect": "Deny"}


def _few(items: list[str]) -> list[str] | str:
    return items[0] if len(items) == 1 else items


def _uses_kms(settings: Settings) -> bool:
    return settings.s3_sse in ("kms", "kms-dsse")


def _client_maker(settings: Settings) -> tuple[Callable[[], Sts], str | None]:
    """Return what makes a client of STS with the worker's own credentials, and its region, if there is one.

    Only boto3 knows all kinds of credentials.
    """
    try:
        boto3, config = import_module("boto3"), import_module("botocore.config")
    except ImportError:
        raise Invalid("session_role needs boto3", hint="pip install 'everturn[aws]', or unset session_role") from None
    options = config.Config(
        connect_timeout=settings.request_timeout_s / 2,
        read_timeout=settings.request_timeout_s,
        retries={"total_max_attempts": 1},  # trying again is for `Requests` to decide
    )

    def session() -> Any:
        return boto3.Session(profile_name=settings.aws_profile, region_name=settings.aws_region)

    def make() -> Sts:
        endpoint = settings.aws_endpoint_url_sts or settings.aws_endpoint_url
        client: Sts = session().client("sts", endpoint_url=endpoint, config=options)
        return client

    try:
        return make, session().region_name
    except Exception as error:
        raise _translated(error, settings.session_role or "") from error


def _translated(error: Exception, role: str) -> EverturnError:
    """Return the error of ours that says why a role could not be assumed. What could hold a secret is left out of it:
    addresses, and what a program said that was asked for credentials."""
    if isinstance(error, EverturnError):
        return error
    errors = import_module("botocore.exceptions")
    kind = type(error).__name__
    if isinstance(error, errors.ClientError):
        return _refused(error, role)
    if any(sign in kind for sign in ("Credential", "Token", "Login", "SSO")):
        return Denied(
            f"there are no credentials to assume {role} with: {kind}",
            hint="give the worker AWS credentials of its own, or a profile in AWS_PROFILE",
        )
    if isinstance(error, errors.NoRegionError | errors.ProfileNotFound | errors.ParamValidationError):
        return Invalid(f"{role} cannot be assumed: {error}", hint="check session_role, AWS_REGION and AWS_PROFILE")
    if isinstance(error, ValueError):
        return Invalid(f"{role} cannot be assumed: {kind}", hint="check AWS_ENDPOINT_URL_STS and AWS_REGION")
    return Unavailable(
        f"{role} could not be assumed: {kind}",
        hint="check that STS can be reached, and AWS_ENDPOINT_URL_STS; it is safe to try again",
    )


def _refused(error: Any, role: str) -> EverturnError:
    answer = error.response.get("Error", {})
    code, status = answer.get("Code", ""), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    reason = answer.get("Message", "").partition("\n")[0]  # what follows may repeat the request, secrets included
    said = f"{code}: {reason}".rstrip(": ")
    if code in _THROTTLED_CODES or status >= 500 or status == 429:
        return Unavailable(f"{role} could not be assumed: {said}", hint="it is safe to try again")
    if code in _INVALID_CODES:
        return Invalid(f"STS refuses to let {role} be assumed: {said}", hint="see docs/credentials.md")
    return Denied(
        f"not allowed to assume {role}: {said}",
        hint="the role has to trust this worker with sts:AssumeRole and sts:TagSession (docs/credentials.md)",
    )
