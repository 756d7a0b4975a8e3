"""Whatever a forge signs, its route answers: with a receipt, or with what is wrong. Never with a failure of ours."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_from_bytes

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from everturn.service.parts import Parts
from everturn.service.web.app import make_app
from forges.senders import SECRET, SENDERS, Sender, Webhook, inside, paths
from served import settings_at

pytestmark = pytest.mark.slow

HOSTILE = st.sampled_from(
    [
        *("../../../etc/passwd", "a\x00b", "x\r\nSet-Cookie: y", "-rf", "--upload-pack=touch /tmp/x", "ext::sh -c x"),
        *("refs/heads/" + "x" * 5000, "\u202egpj.exe", "\ud800", "%2e%2e%2f", "file:///etc/passwd", "$(id)", "`id`"),
        *("';DROP TABLE deliveries;--", "{{7*7}}", "<script>alert(1)</script>", "http://127.0.0.1:1/x.git", "", " "),
    ]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    | HOSTILE.filter(lambda text: "\ud800" not in text),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)
often = settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    parts = Parts.open(settings_at(tmp_path_factory.mktemp("service")))
    yield TestClient(make_app(parts), base_url="http://localhost")  # what nobody expected is raised here
    parts.close()


def all_webhooks(sender: Sender) -> list[Webhook]:
    return [sender.closed(), sender.issue, *sender.deletions, *sender.quiet]


def check(routes: TestClient, sender: Sender, headers: dict[str, Any], body: bytes) -> None:
    answer = routes.post(f"/webhooks/{sender.name}", headers=headers, content=body)
    assert answer.status_code in (200, 202, 400, 401, 415, 422)
    if answer.status_code < 300:
        assert answer.json().keys() == {"status", "delivery", "reason"}
    else:
        assert answer.json()["error"].keys() == {"kind", "message", "hint"}
    assert answer.headers["content-type"] == "application/json"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("sender", SENDERS, ids=[each.name for each in SENDERS])
@often
@given(data=st.data())
def test_signed_payloads_with_anything_in_them_are_answered(
    routes: TestClient, sender: Sender, data: st.DataObject
) -> None:
    webhook = data.draw(st.sampled_from(all_webhooks(sender)))
    payload = copy.deepcopy(webhook.payload)
    for _ in range(data.draw(st.integers(1, 3)) if payload else 0):
        path = data.draw(st.sampled_from(sorted(paths(payload))))
        parent = inside(payload, path[:-1])
        if data.draw(st.booleans()):
            parent[path[-1]] = data.draw(VALUES)
        else:
            del parent[path[-1]]
        if not payload:
            break
    headers, body = sender.send(Webhook(webhook.event, payload), delivery_id=str(data.draw(st.integers(0, 1 << 62))))
    check(routes, sender, headers, body)


@pytest.mark.parametrize("sender", SENDERS, ids=[each.name for each in SENDERS])
@often
@given(body=st.binary(max_size=300), data=st.data())
def test_signed_bytes_of_any_kind_are_answered(
    routes: TestClient, sender: Sender, body: bytes, data: st.DataObject
) -> None:
    webhook = data.draw(st.sampled_from(all_webhooks(sender)))
    whole = orjson.dumps(webhook.payload)
    at = data.draw(st.integers(0, len(whole)))
    sent = data.draw(
        st.sampled_from(
            [body, whole[:at], whole[:at] + body + whole[at:], b"payload=" + quote_from_bytes(body).encode()]
        )
    )
    headers, sent = sender.send_body(webhook.event, sent)
    if data.draw(st.booleans()):
        headers["content-type"] = "application/x-www-form-urlencoded"
    check(routes, sender, headers, sent)


@pytest.mark.parametrize("sender", SENDERS, ids=[each.name for each in SENDERS])
@often
@given(data=st.data())
def test_headers_with_anything_in_them_are_answered(routes: TestClient, sender: Sender, data: st.DataObject) -> None:
    headers, body = sender.send(sender.issue, SECRET)
    for name in data.draw(st.lists(st.sampled_from(sorted(headers)), max_size=3)):
        value = data.draw(st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=300) | st.just(""))
        headers[name] = value.encode("latin-1")  # type: ignore[assignment]
    check(routes, sender, headers, body)
