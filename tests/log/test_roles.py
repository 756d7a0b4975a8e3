"""What is asked of STS, and when: policies, tags, renewal, failures (docs/credentials.md)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    UnauthorizedSSOTokenError,
)
from hypothesis import given
from hypothesis import strategies as st

from everturn import Runtime, TranscriptStore
from everturn.clock import ManualClock
from everturn.errors import Denied, EverturnError, Invalid, Unavailable
from everturn.log.names import escape
from everturn.log.objects import run
from everturn.log.roles import (
    DURATION_S,
    MAX_POLICY_CHARS,
    MAX_TAG_CHARS,
    Assignment,
    RoleCredentials,
    SessionRole,
    tag_value,
)
from everturn.log.stores import connect, locate, role_of
from everturn.settings import Settings
from polling import wait_until

ROLE = "arn:aws:iam::123456789012:role/agents/run"
SCOPE = "fixer@https://git.example/Acme/web#42"
URL = "s3://bucket/agents"


class FakeSts:
    """Gives credentials that are numbered, or fails as it is told to."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.requests: list[dict[str, Any]] = []
        self.failure: Exception | None = None
        self.lasts_s = float(DURATION_S)
        self.before: Callable[[], object] = lambda: None

    def assume_role(self, **request: Any) -> Any:
        self.requests.append(request)
        self.before()
        if self.failure is not None:
            raise self.failure
        number = len(self.requests)
        return {
            "Credentials": {
                "AccessKeyId": f"key-{number}",
                "SecretAccessKey": f"secret-{number}",
                "SessionToken": f"token-{number}",
                "Expiration": datetime.fromtimestamp(self.clock.now(), UTC) + timedelta(seconds=self.lasts_s),
            }
        }


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def sts(clock: ManualClock) -> FakeSts:
    return FakeSts(clock)


def role(sts: FakeSts | None = None, prefix: str = "agents", **settings: Any) -> SessionRole:
    given = Settings.load(**{"session_role": ROLE, **settings})
    if sts is None:
        return SessionRole(given, "bucket", prefix)
    return SessionRole(given, "bucket", prefix, clock=sts.clock, make_sts=lambda: sts)


def credentials(sts: FakeSts) -> RoleCredentials:
    return role(sts).credentials(Assignment(SCOPE))


def key_in_hand(held: RoleCredentials) -> str:
    return str(held()["access_key_id"])


def answer(code: str, status: int = 400) -> ClientError:
    error = {"Error": {"Code": code, "Message": "said so"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(error, "AssumeRole")


# --- What is asked for ---

FOLDERS = ("sessions", "homes", "summaries", "catalogs", "journal", "damaged")


def statements(scope: str = SCOPE, **settings: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(role(**settings).policy(scope))["Statement"]
    return found


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_the_policy_allows_a_scopes_folders_by_their_exact_names_and_nothing_else() -> None:
    segment = escape(SCOPE, "scope")
    allowed: dict[str, set[str]] = {}
    for statement in statements():
        assert statement["Effect"] == "Allow"
        for action in as_list(statement["Action"]):
            allowed.setdefault(action, set()).update(as_list(statement["Resource"]))
    place = "arn:aws:s3:::bucket/agents"
    written = {f"{place}/{folder}/{segment}/*" for folder in FOLDERS}
    written.add(f"{place}/probes/{segment}.json")
    traces = f"{place}/traces/{segment}/*"
    assert allowed == {
        "s3:GetObject": written | {traces, f"{place}/holds/{segment}/*", f"{place}/format.json"},
        "s3:PutObject": written | {traces},
        "s3:DeleteObject": written,
        "s3:ListBucket": {"arn:aws:s3:::bucket"},
    }


def test_listing_is_allowed_below_the_scopes_folders_only() -> None:
    (condition,) = [one["Condition"] for one in statements("task-1") if one["Action"] == "s3:ListBucket"]
    assert condition == {
        "StringLike": {
            "s3:prefix": [
                *(f"agents/{folder}/task-1/*" for folder in (*FOLDERS, "traces", "holds")),
                "agents/format.json",
            ]
        }
    }


def test_a_store_at_the_top_of_a_bucket_has_no_empty_folder_in_its_policy() -> None:
    policy = role(prefix="").policy("t")
    assert "arn:aws:s3:::bucket/sessions/t/*" in policy
    assert "//" not in policy


def test_the_policy_is_for_the_partition_of_the_role() -> None:
    policy = role(session_role="arn:aws-us-gov:iam::123456789012:role/r").policy("t")
    assert "arn:aws-us-gov:s3:::bucket" in policy
    assert "arn:aws:" not in policy


def test_no_scope_brings_a_wildcard_or_a_variable_into_its_policy() -> None:
    made = role()

    @given(st.text(min_size=1))
    def look_at(scope: str) -> None:
        try:
            policy = made.policy(scope)
        except Invalid:
            return
        plain = made.policy("x" * len(escape(scope, "scope")))
        assert [policy.count(char) for char in "*?$"] == [plain.count(char) for char in "*?$"]
        assert len(policy) <= MAX_POLICY_CHARS

    look_at()


def test_a_policy_is_as_short_as_sts_takes_it_unless_names_are_very_long() -> None:
    made = role(prefix="platform/agents/production")
    assert max(len(made.policy("x" * length)) for length in range(1, 201)) <= MAX_POLICY_CHARS
    with pytest.raises(Invalid, match="2048 is the most"):
        role(prefix="x" * 400).policy("x" * 240)


@pytest.mark.parametrize("prefix", ["a*", "a?", "${aws:username}", "ä", "a[b]"])
def test_a_prefix_that_means_something_else_to_iam_is_refused(prefix: str) -> None:
    with pytest.raises(Invalid, match="session policy cannot tell apart"):
        role(prefix=prefix)


@pytest.mark.parametrize("bucket", ["*", "agents-*", "${aws:username}", "key:secret@agents", ""])
def test_a_bucket_that_means_something_else_to_iam_is_refused_and_not_shown(bucket: str) -> None:
    with pytest.raises(Invalid, match="no name of a bucket") as refused:
        role_of(f"s3://{bucket}/agents", Settings.load(session_role=ROLE))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "resource", "alias"),
    [
        (None, "arn:aws:kms:*:*:key/*", "alias/aws/s3"),
        ("alias/mine", "arn:aws:kms:*:*:key/*", "alias/mine"),
        ("arn:aws:kms:eu-west-1:123456789012:alias/mine", "arn:aws:kms:*:*:key/*", "alias/mine"),
        ("arn:aws:kms:eu-west-1:123456789012:key/k1", "arn:aws:kms:eu-west-1:123456789012:key/k1", None),
        ("k1", "arn:aws:kms:*:*:key/k1", None),
    ],
)
def test_the_key_that_the_store_encrypts_with_may_be_used_and_no_other(
    key: str | None, resource: str, alias: str | None
) -> None:
    *_, last = statements(s3_sse="kms", s3_sse_kms_key=key)
    assert last["Action"] == ["kms:GenerateDataKey", "kms:Decrypt"]
    assert last["Resource"] == resource
    named = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": alias}} if alias else None
    assert last.get("Condition") == named
    assert "kms" not in json.dumps(statements())


def test_session_tags_name_the_task_the_agent_and_the_repository(sts: FakeSts) -> None:
    made = role(sts)
    made.credentials(Assignment(SCOPE, "fixer", "https://git.example/Acme/web")).renew()
    (request,) = sts.requests
    assert request["Tags"] == [
        {"Key": "everturn-task", "Value": "fixer@https://git.example/Acme/web=2342"},
        {"Key": "everturn-agent", "Value": "fixer"},
        {"Key": "everturn-repo", "Value": "https://git.example/Acme/web"},
    ]
    assert request["RoleArn"] == ROLE
    assert request["Policy"] == made.policy(SCOPE)
    assert request["DurationSeconds"] == 3600
    assert request["RoleSessionName"].startswith("everturn-fixer@https-git.example-Acme-web-42-")


@pytest.mark.parametrize("task", ["42", "a.b_c-d", "..", "x" * 200])
def test_a_plain_task_has_its_id_as_a_tag_which_is_the_end_of_its_folders_name(task: str) -> None:
    tags = {tag["Key"]: tag["Value"] for tag in Assignment(f"task:{task}").tags()}
    assert escape(f"task:{task}", "scope") == "task!3a" + tags["everturn-task-id"]


@pytest.mark.parametrize("scope", ["task:A", "task:a b", "task:a/b", "task:é", "task:a\n", "task:", "42", SCOPE])
def test_no_other_scope_has_that_tag(scope: str) -> None:
    assert "everturn-task-id" not in {tag["Key"] for tag in Assignment(scope).tags()}


def test_a_registrys_row_is_allowed_by_its_whole_key_and_only_if_asked_for() -> None:
    assert "dynamodb" not in role().policy("task:${aws:userid}")
    (row,) = [
        one
        for one in json.loads(role().policy("task:${aws:userid}", "fleet"))["Statement"]
        if "dynamodb" in str(one["Action"])
    ]
    assert row["Action"] == ["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:DeleteItem"]
    assert row["Resource"] == "arn:aws:dynamodb:*:*:table/fleet"
    key = "task:${$}{aws:userid}"  # `${$}` is how IAM spells a dollar
    assert row["Condition"] == {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": key}}


def spoken(value: str) -> str:
    pieces = value.split("=")
    return (pieces[0].encode() + b"".join(bytes.fromhex(p[:2]) + p[2:].encode() for p in pieces[1:])).decode()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_a_tag_takes_any_text_and_gives_it_back(text: str) -> None:
    value = tag_value(text)
    assert set(value) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:/=+-@")
    if "==" not in value:
        assert spoken(value) == text


def test_a_text_too_long_for_a_tag_ends_in_its_digest() -> None:
    one, other = (tag_value("x" * 300 + end) for end in "ab")
    assert len(one) == len(other) == MAX_TAG_CHARS
    assert one != other
    assert "==" in one


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text(min_size=1, max_size=5))
def test_every_scope_has_a_session_name_that_sts_takes(scope: str, other: str) -> None:
    name = Assignment(scope).session_name()
    assert 2 <= len(name) <= 64
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+=,.@-")


# --- When it is asked for ---


def test_nothing_is_asked_for_before_it_is_needed(sts: FakeSts) -> None:
    held = credentials(sts)
    assert not sts.requests
    held.renew()
    held.renew()
    assert key_in_hand(held) == "key-1"


def test_credentials_are_renewed_well_before_they_end(sts: FakeSts, clock: ManualClock) -> None:
    held = credentials(sts)
    held.renew()
    clock.advance(DURATION_S * 0.74)
    assert key_in_hand(held) == "key-1"
    clock.advance(DURATION_S * 0.02)
    assert key_in_hand(held) == "key-2"
    assert len(sts.requests) == 2


def test_credentials_that_last_for_less_than_was_asked_for_are_renewed_accordingly(
    sts: FakeSts, clock: ManualClock
) -> None:
    sts.lasts_s = 900
    held = credentials(sts)
    held.renew()
    clock.advance(700)
    assert key_in_hand(held) == "key-2"


def test_a_failed_renewal_is_tried_again_now_and_then_while_the_old_credentials_last(
    sts: FakeSts, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    held = credentials(sts)
    held.renew()
    clock.advance(DURATION_S * 0.8)
    sts.failure = EndpointConnectionError(endpoint_url="https://sts.example")
    with caplog.at_level("INFO", "everturn"):
        assert key_in_hand(held) == key_in_hand(held) == "key-1"
        clock.advance(20)
        assert key_in_hand(held) == "key-1"
        sts.failure = None
        clock.advance(20)
        assert key_in_hand(held) == "key-4"
    events = [json.loads(record.message) for record in caplog.records]
    assert [event["event"] for event in events] == ["role_renewal_failed", "role_renewal_failed", "role_assumed"]
    assert events[0]["left_s"] == 660
    assert not any(secret in str(events) for secret in ("key-", "secret-", "token-"))


def test_credentials_are_not_used_when_they_could_end_within_a_request(sts: FakeSts, clock: ManualClock) -> None:
    held = credentials(sts)
    held.renew()
    sts.failure = EndpointConnectionError(endpoint_url="https://sts.example")
    clock.advance(DURATION_S - 61)
    assert key_in_hand(held) == "key-1"
    clock.advance(2)
    with pytest.raises(Unavailable, match="could not be assumed"):
        held.renew()
    sts.failure = None
    clock.advance(2)
    held.renew()
    assert key_in_hand(held) == "key-4"


def test_a_clock_set_wrong_is_named_as_the_cause(sts: FakeSts) -> None:
    sts.lasts_s = -86400
    with pytest.raises(Unavailable, match="clock right"):
        credentials(sts).renew()


def test_those_who_need_credentials_at_the_same_time_ask_once(sts: FakeSts) -> None:
    held, everybody = credentials(sts), Event()
    sts.before = lambda: everybody.wait(20)
    with ThreadPoolExecutor(8) as threads:
        keys = [threads.submit(key_in_hand, held) for _ in range(8)]
        wait_until(lambda: sts.requests, "a request")
        everybody.set()
    assert {key.result() for key in keys} == {"key-1"}
    assert len(sts.requests) == 1


def test_those_who_need_credentials_at_the_same_time_fail_together(sts: FakeSts) -> None:
    held, everybody = credentials(sts), Event()
    sts.failure, sts.before = answer("AccessDenied", 403), lambda: everybody.wait(20)
    with ThreadPoolExecutor(8) as threads:
        tries = [threads.submit(held.renew) for _ in range(8)]
        wait_until(lambda: sts.requests, "a request")
        everybody.set()
    assert {type(one.exception()) for one in tries} == {Denied}
    assert len(sts.requests) == 1


def test_nobody_waits_for_a_renewal_while_the_old_credentials_last(sts: FakeSts, clock: ManualClock) -> None:
    held, end = credentials(sts), Event()
    held.renew()
    clock.advance(DURATION_S * 0.8)
    sts.before = lambda: end.wait(20)
    with ThreadPoolExecutor(1) as threads:
        renewing = threads.submit(key_in_hand, held)
        wait_until(lambda: len(sts.requests) == 2, "a renewal")
        assert key_in_hand(held) == "key-1"
        end.set()
    assert renewing.result() == "key-2"


@pytest.mark.parametrize(
    ("failure", "kind", "match"),
    [
        (answer("AccessDenied", 403), Denied, "not allowed to assume .*AccessDenied: said so"),
        (answer("ExpiredToken", 403), Denied, "ExpiredToken"),
        (answer("InvalidClientTokenId", 403), Denied, "InvalidClientTokenId"),
        (answer("PackedPolicyTooLarge"), Invalid, "PackedPolicyTooLarge"),
        (answer("ValidationError"), Invalid, "ValidationError"),
        (answer("Throttling"), Unavailable, "Throttling"),
        (answer("InternalFailure", 500), Unavailable, "InternalFailure"),
        (NoCredentialsError(), Denied, "no credentials to assume"),
        (UnauthorizedSSOTokenError(), Denied, "no credentials to assume"),
        (NoRegionError(), Invalid, "region"),
        (EndpointConnectionError(endpoint_url="https://sts.example"), Unavailable, "EndpointConnectionError"),
    ],
)
def test_what_sts_says_becomes_an_error_of_ours(
    sts: FakeSts, failure: Exception, kind: type[EverturnError], match: str
) -> None:
    sts.failure = failure
    with pytest.raises(kind, match=match) as caught:
        credentials(sts).renew()
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "failure",
    [
        EndpointConnectionError(endpoint_url="https://me:secret@sts.example"),
        CredentialRetrievalError(provider="custom-process", error_msg="token=secret"),
        ValueError("Invalid endpoint: https://me:secret@sts_example"),
    ],
)
def test_what_an_error_says_of_secrets_is_not_told(sts: FakeSts, failure: Exception) -> None:
    sts.failure = failure
    with pytest.raises(EverturnError, match=type(failure).__name__) as caught:
        credentials(sts).renew()
    assert "secret" not in str(caught.value)


def test_what_sts_repeats_of_a_request_is_not_told(sts: FakeSts) -> None:
    sts.failure = answer("SignatureDoesNotMatch", 403)
    sts.failure.response["Error"]["Message"] = "They differ.\n\nx-amz-security-token:secret"
    with pytest.raises(Denied, match=r"SignatureDoesNotMatch: They differ\. \(") as caught:
        credentials(sts).renew()
    assert "secret" not in str(caught.value)


def test_without_credentials_no_request_is_made_to_the_store(sts: FakeSts) -> None:
    sts.failure = answer("AccessDenied", 403)
    nowhere = Settings.load(session_role=ROLE, aws_endpoint_url="http://127.0.0.1:1")
    objects = locate("s3://bucket/prefix", nowhere, credentials=credentials(sts))
    for request in (objects.get("a"), objects.create("a", b""), objects.listing("a"), objects.delete(["a"])):
        with pytest.raises(Denied, match="not allowed to assume"):
            run(request)


def test_credentials_do_not_show_in_what_is_printed_of_them(sts: FakeSts) -> None:
    held = credentials(sts)
    held.renew()
    assert "secret-1" not in repr(vars(held))
    assert "token-1" not in repr(vars(held))


# --- What is refused ---


@pytest.mark.parametrize("arn", ["me", "arn:aws:iam::123456789012:user/me", "arn:aws:iam::1:role/r", f"{ROLE} "])
def test_what_is_no_role_is_refused(arn: str) -> None:
    with pytest.raises(Invalid, match="no ARN of a role"):
        Runtime.open(store=URL, session_role=arn)


@pytest.mark.parametrize("url", ["file:///tmp/store", "memory://"])
def test_a_role_for_a_store_without_roles_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="has no roles"):
        Runtime.open(store=url, session_role=ROLE)
    with pytest.raises(Invalid, match="has no roles"):
        TranscriptStore.open(url, scope="t", settings=Settings.load(session_role=ROLE))


def test_a_role_for_a_directory_bucket_is_refused_as_it_could_not_be_limited_to_a_scope() -> None:
    with pytest.raises(Invalid, match="S3 Express gives access to the whole bucket"):
        Runtime.open(store="s3://agents--use1-az5--x-s3/x", session_role=ROLE)


def test_without_boto3_a_role_is_refused_and_nothing_else_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(Invalid, match="needs boto3") as caught:
        Runtime.open(store=URL, session_role=ROLE)
    assert "everturn[aws]" in caught.value.hint
    Runtime.open(store=URL)


def test_whoever_connects_for_no_scope_has_the_workers_own_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    connect(URL, Settings.load(session_role=ROLE))
