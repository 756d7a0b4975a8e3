"""Whatever bad input comes over the wire: a clear 4xx with an error in JSON, no stack trace, and nothing changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from everturn.service.web.protocol import Limits
from forges.senders import GITHUB, Webhook, hub_repository
from polling import wait_until
from served import ADMIN_TOKEN, Running, read_all, running, settings_at, status_of

LIMIT = 1 << 20
ROUTE = "/webhooks/github"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = settings_at(tmp_path_factory.mktemp("service"), webhook_limit_bytes=LIMIT)
    with running(settings, Limits(receive_s=2.0, idle_s=5.0)) as made:
        yield made


def request(headers: dict[str, str], body: bytes, path: str = ROUTE, *, length: int | None = None) -> bytes:
    """A request as it goes over the wire; it may say of itself that it is longer, or in chunks (-1)."""
    framing = "transfer-encoding: chunked" if length == -1 else f"content-length: {length or len(body)}"
    lines = [f"POST {path} HTTP/1.1", "host: localhost", "connection: close", framing]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode() + body


def signed(body: bytes, event: str = "issues", **more: str) -> bytes:
    headers, body = GITHUB.send_body(event, body, delivery_id="bad")
    return request({**headers, **more}, body)


def sent(webhook: Webhook, **more: str) -> bytes:
    return signed(orjson.dumps(webhook.payload), webhook.event, **more)


def chunked(size: int) -> bytes:
    headers, _ = GITHUB.send_body("issues", b"")
    return request(headers, b"%x\r\n" % size + b" " * size + b"\r\n0\r\n\r\n", length=-1)


def unfinished(missing: int) -> bytes:
    headers, body = GITHUB.send(GITHUB.issue)
    return request(headers, body[:-missing], length=len(body))


def of(repository: str) -> Webhook:
    return GITHUB.issue.changed("repository", to=hub_repository("forge.example", repository))


def admin(path: str, body: bytes, token: str = ADMIN_TOKEN, kind: str = "application/json") -> bytes:
    return request({"authorization": f"Bearer {token}", "content-type": kind}, body, path)


BAD: dict[str, tuple[int, Callable[[], bytes]]] = {
    "a body over the limit, by what it says": (
        413,
        lambda: request(GITHUB.send(GITHUB.issue)[0], b"", length=LIMIT + 1),
    ),
    "a body over the limit, in chunks": (413, lambda: chunked(LIMIT + 1)),
    "a large body where small ones are wanted": (413, lambda: admin("/admin/sweep", b" " * 100_000)),
    "no signature": (401, lambda: request({"content-type": "application/json", "x-github-event": "issues"}, b"{}")),
    "an empty signature": (401, lambda: sent(GITHUB.issue, **{"x-hub-signature-256": ""})),
    "a wrong signature": (401, lambda: sent(GITHUB.issue, **{"x-hub-signature-256": "sha256=" + "0" * 64})),
    "SHA-1 only": (401, lambda: request({"content-type": "application/json", "x-hub-signature": "sha1=0"}, b"{}")),
    "a wrong token": (401, lambda: admin("/admin/sweep", b"{}", token="another-token-of-length")),
    "a wrong content type": (415, lambda: sent(GITHUB.issue, **{"content-type": "text/plain"})),
    "a form for admins": (415, lambda: admin("/admin/sweep", b"all=true", kind="application/x-www-form-urlencoded")),
    "truncated JSON": (400, lambda: signed(orjson.dumps(GITHUB.issue.payload)[:-7])),
    "truncated JSON for admins": (400, lambda: admin("/admin/reset", b'{"all": tru')),
    "10,000 levels": (400, lambda: signed(b'{"a":' * 10_000 + b"1" + b"}" * 10_000)),
    "10,000 levels for admins": (400, lambda: admin("/admin/reset", b"[" * 10_000 + b"]" * 10_000)),
    "very many keys": (422, lambda: signed(orjson.dumps({f"{number:x}": 0 for number in range(90_000)}))),
    "an unknown event": (422, lambda: signed(b"{}", "nothing")),
    "an unknown field for admins": (422, lambda: admin("/admin/reset", b'{"all": true, "really": true}')),
    "a missing field": (422, lambda: sent(GITHUB.issue.without("issue", "number"))),
    "no field at all": (422, lambda: signed(b"{}")),
    "a branch that climbs": (422, lambda: sent(GITHUB.deletions[0].changed("ref", to="../../etc"))),
    "a branch with a NUL": (422, lambda: sent(GITHUB.deletions[0].changed("ref", to="a\x00b"))),
    "a repository that runs a command": (
        422,
        lambda: sent(of("a/b").changed("repository", "clone_url", to="ext::sh -c id")),
    ),
    "an id that injects a header": (422, lambda: sent(GITHUB.issue, **{"x-github-delivery": "a b; set-cookie: x"})),
    "a header with a line break in it": (400, lambda: sent(GITHUB.issue, **{"x-y": "a\rset-cookie: x"})),
    "a path that climbs": (404, lambda: request({}, b"", "/webhooks/..%2f..%2fadmin%2freset")),
    "a session that climbs": (404, lambda: admin("/admin/sessions/..%2f..%2fx/drop", b"{}")),
    "a head that does not end": (408, lambda: b"POST /webhooks/github HTTP/1.1\r\nhost: localhost\r\nx-a: "),
    "a body that does not end": (408, lambda: unfinished(3)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_a_clear_refusal_and_changes_nothing(service: Running, name: str) -> None:
    status, make = BAD[name]
    before = kept(service)
    with service.connect() as connection:
        connection.sendall(make())
        said = read_all(connection)
    head, _, body = said.partition(b"\r\n\r\n")
    assert status_of(said) == status, said[:300]
    error = orjson.loads(body)["error"]
    assert error.keys() == {"kind", "message", "hint"}
    assert all(error.values())
    assert b"set-cookie" not in head.lower()
    assert b"Traceback" not in body
    assert b".py" not in body
    assert kept(service) == before
    assert service.ask("GET", "/healthz").status_code == 200


def kept(service: Running) -> list[Any]:
    """What the service has noted that it does, or has done."""
    assert service.service is not None
    logbook = service.service.parts.logbook
    return [*logbook.deliveries.page(100), *logbook.acts.page(100)]


@pytest.mark.parametrize(
    ("delivery_id", "webhook"),
    [
        ("branch-like-an-option", GITHUB.deletions[0].changed("ref", to="--upload-pack=x")),
        ("repository-that-is-a-file", of("a/b").changed("repository", "clone_url", to="file:///etc/passwd")),
        ("number-that-nobody-has", of("a/b").changed("issue", "number", to=2**62)),
    ],
)
def test_names_that_git_would_take_are_compared_and_nothing_else(
    service: Running, delivery_id: str, webhook: Webhook
) -> None:
    assert service.send(GITHUB, webhook, delivery_id).status_code == 202
    wait_until(lambda: all(each.done_at for each in kept(service)), "it is done")
    assert [each.freed for each in kept(service)] == [0] * len(kept(service))
