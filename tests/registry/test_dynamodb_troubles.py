"""Tables that are wrong, servers that fail, and ways that lead nowhere."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable

import pytest

from everturn.clock import ManualClock
from everturn.errors import Denied, Invalid, NotFound, Unavailable
from everturn.model import Claim
from everturn.registry import DynamoDbRegistry, Registry, open_registry
from everturn.registry.table import client_maker
from everturn.settings import Settings
from registry.dynamo import (
    ACTS,
    BROKEN,
    SLOW,
    THROTTLED,
    Dynamo,
    DynamoPlace,
    Trouble,
    asked,
    hang_up,
    lose_answer,
    refusing,
)
from registry.places import START_S, TTL_S, WORK, claim, holder


@pytest.fixture
def place(dynamodb_place: DynamoPlace) -> DynamoPlace:
    return dynamodb_place


# --- What is wrong with the table or the way there ------------------------------------------------------------------

MADE = Claim(WORK, "some-session", 1, is_new=True)
EVERYTHING: dict[str, Callable[[Registry, Claim], object]] = {
    **ACTS,
    "get": lambda registry, _: registry.get(WORK),
    "find": lambda registry, _: registry.find("some-session"),
    "records": lambda registry, _: registry.records(),
    "sweep": lambda registry, _: registry.sweep(),
}
EACH = pytest.mark.parametrize("act", EVERYTHING.values(), ids=EVERYTHING.keys())


@EACH
def test_a_table_that_is_not_there_is_not_found(
    dynamo: Dynamo, credentials: None, act: Callable[[Registry, Claim], object]
) -> None:
    with pytest.raises(NotFound, match="there is no table missing") as caught:
        act(DynamoDbRegistry("missing", client=dynamo.client), MADE)
    assert "AWS_ENDPOINT_URL" in caught.value.hint


@pytest.mark.parametrize("key", ["id", "work"])
def test_a_table_with_another_key_is_invalid(dynamo: Dynamo, credentials: None, key: str) -> None:
    """Another name of the key, or a sort key beside it."""
    schema = [{"AttributeName": key, "KeyType": "HASH"}]
    if key == "work":
        schema.append({"AttributeName": "sort", "KeyType": "RANGE"})
    name = f"wrong-{key}"
    dynamo.client.create_table(
        TableName=name,
        KeySchema=schema,
        AttributeDefinitions=[{"AttributeName": one["AttributeName"], "AttributeType": "S"} for one in schema],
        BillingMode="PAY_PER_REQUEST",
    )
    with pytest.raises(Invalid, match=f"the table {name} refuses") as caught:
        claim(DynamoDbRegistry(name, client=dynamo.client))
    assert "partition key" in caught.value.hint


def test_a_table_that_is_there_is_not_made_again(registry: DynamoDbRegistry, place: DynamoPlace) -> None:
    claim(registry)
    with pytest.raises(Invalid, match="already"):
        registry.create_table()
    assert registry.get(WORK) is not None


def test_a_table_that_was_just_made_need_not_be_known_everywhere(place: DynamoPlace) -> None:
    unknown = refusing("400 Bad Request", "ResourceNotFoundException", "Requested resource not found")
    place.dynamo.on["DescribeTable"] = [unknown, unknown]
    place.table += "-made"
    place.connect().create_table()
    made = claim(place.connect())
    assert place.connect().renew(made, TTL_S).until > 0
    assert asked(place).count("UpdateTimeToLive") == 1


def test_a_table_that_was_made_without_an_answer_is_finished(place: DynamoPlace) -> None:
    place.dynamo.on["CreateTable"] = [lose_answer]
    place.table += "-made"
    place.connect().create_table()
    assert asked(place).count("UpdateTimeToLive") == 1
    assert claim(place.connect()).is_new


def test_a_table_whose_ttl_cannot_be_set_is_there_and_whoever_made_it_is_told(place: DynamoPlace) -> None:
    place.dynamo.on["UpdateTimeToLive"] = [refusing("400 Bad Request", "AccessDeniedException", "not authorized")]
    place.table += "-made"
    with pytest.raises(Denied, match=f"the table {place.table} is made") as caught:
        place.connect().create_table()
    assert "TTL on the attribute expires_at" in caught.value.hint
    assert claim(place.connect()).is_new


@pytest.mark.slow
def test_a_table_that_never_becomes_ready_is_not_waited_for_for_ever(place: DynamoPlace) -> None:
    unknown = refusing("400 Bad Request", "ResourceNotFoundException", "Requested resource not found")
    place.dynamo.on["DescribeTable"] = [unknown] * 1000
    place.table += "-never"
    with pytest.raises(Unavailable, match="still being made"):
        place.connect().create_table()


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        ("AccessDeniedException", "User: arn:aws:iam::1:user/w is not authorized", Denied),
        ("UnrecognizedClientException", "The security token included in the request is invalid", Denied),
        ("ExpiredTokenException", "The security token included in the request is expired", Denied),
        ("InvalidSignatureException", "Signature expired: 1 is now earlier than 2", Denied),
        ("InvalidSignatureException", "The Canonical String should have been 'secret'", Denied),
        ("ValidationException", "One or more parameter values were invalid", Invalid),
    ],
)
def test_a_refusal_says_why_and_is_not_tried_again(
    registry: DynamoDbRegistry, place: DynamoPlace, code: str, message: str, kind: type[Exception]
) -> None:
    place.dynamo.troubles = [refusing("400 Bad Request", code, message)]
    with pytest.raises(kind, match=code) as caught:
        claim(registry)
    assert asked(place) == ["GetItem"]
    assert ("clock" in str(caught.value)) == ("Signature expired" in message)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(THROTTLED, id="throttled", marks=SLOW),
        pytest.param(BROKEN, id="broken"),
        pytest.param(hang_up, id="hung up", marks=SLOW),
    ],
)
@EACH
def test_a_registry_that_goes_on_failing_is_unavailable_after_a_while(
    place: DynamoPlace, act: Callable[[Registry, Claim], object], trouble: Trouble
) -> None:
    place.dynamo.troubles = [trouble] * 1000
    clock = ManualClock(START_S)
    with pytest.raises(Unavailable, match=f"the table {place.table}"):
        act(place.connect(clock=clock), MADE)
    assert 2 < clock.elapsed() - START_S <= 10


@pytest.mark.slow
def test_without_a_server_it_is_unavailable_and_no_password_is_told(credentials: None) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://someone:pa55word@127.0.0.1:{nobody.getsockname()[1]}"
        settings = Settings.load(aws_endpoint_url_dynamodb=url, aws_region="us-east-1")
        registry = DynamoDbRegistry("table", settings=settings, clock=ManualClock(START_S))
        with pytest.raises(Unavailable, match="did not answer") as caught:
            claim(registry)
    assert "pa55word" not in str(caught.value)


@pytest.mark.slow
def test_a_server_that_stays_silent_is_unavailable_within_15_seconds(credentials: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        registry = DynamoDbRegistry("table", settings=Settings.load(aws_endpoint_url=url, aws_region="us-east-1"))
        began = time.monotonic()
        with pytest.raises(Unavailable, match="ReadTimeoutError"):
            claim(registry)
        assert time.monotonic() - began < 16


@pytest.mark.slow
def test_without_credentials_it_is_denied(dynamo: Dynamo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    registry = DynamoDbRegistry("table", settings=dynamo.settings)
    with pytest.raises(Denied, match="NoCredentialsError"):
        claim(registry)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "loopback")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "loopback-secret")
    with pytest.raises(NotFound):
        claim(registry)  # what has been mended since is seen


def test_without_a_region_it_is_invalid(dynamo: Dynamo, credentials: None) -> None:
    registry = DynamoDbRegistry("table", settings=Settings.load(aws_endpoint_url=dynamo.url))
    with pytest.raises(Invalid, match="region") as caught:
        claim(registry)
    assert "?region=" in caught.value.hint


def test_a_profile_that_is_not_there_is_invalid(dynamo: Dynamo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(Invalid, match="nobody"):
        claim(DynamoDbRegistry("table", settings=dynamo.settings))


def test_without_boto3_it_is_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(Invalid, match="needs boto3") as caught:
        open_registry("dynamodb://table")
    assert "everturn[aws]" in caught.value.hint


# --- Where it is ----------------------------------------------------------------------------------------------------


def test_a_registry_is_where_its_url_says(place: DynamoPlace) -> None:
    made = claim(place.connect())
    there = open_registry(f"dynamodb://{place.table}?region=us-east-1", settings=place.dynamo.settings)
    record = there.find(made.session_id)
    assert record is not None
    assert record.worker == holder().worker


@pytest.mark.slow
def test_the_endpoint_of_dynamodb_goes_before_the_general_one(dynamo: Dynamo, credentials: None) -> None:
    settings = Settings.load(
        aws_endpoint_url="http://127.0.0.1:9", aws_endpoint_url_dynamodb=dynamo.url, aws_region="us-east-1"
    )
    assert client_maker(None, settings)().meta.endpoint_url == dynamo.url


def test_the_region_of_the_url_goes_before_the_one_that_is_set(dynamo: Dynamo, credentials: None) -> None:
    assert client_maker("eu-west-1", dynamo.settings)().meta.region_name == "eu-west-1"
    assert client_maker(None, dynamo.settings)().meta.region_name == "us-east-1"


@pytest.mark.parametrize(
    "url",
    [
        "dynamodb://",
        "dynamodb:///table",
        "dynamodb://ab",
        "dynamodb://table/more",
        "dynamodb://table?zone=a",
        "dynamodb://table?region=",
        "dynamodb://table?region=a&region=b",
        "dynamodb://user:pa55word@table",
        "dynamodb:table",
    ],
)
def test_a_url_that_names_no_table_is_invalid(url: str) -> None:
    with pytest.raises(Invalid, match="cannot make a registry") as caught:
        open_registry(url)
    assert "?region=" in caught.value.hint
    assert "pa55word" not in str(caught.value)
