"""Webhooks, sent to the whole service on loopback: what is kept, what is refused, and with which words."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.testclient import TestClient

from everturn.errors import Corrupt, Denied, EverturnError, Invalid, Unavailable
from everturn.forges import FORGES
from everturn.service.parts import Parts
from everturn.service.web import webhooks
from everturn.service.web.app import make_app
from everturn.service.web.protocol import Limits
from forges.senders import GITEA, GITHUB, GITLAB, SECRET, SENDERS, SIGNING, Sender, standard_signature
from polling import wait_until
from served import WAIT_S, Running, error_of, read_all, running, settings_at, status_of

LIMIT = 64 << 10
QUICK = Limits(receive_s=0.5)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = settings_at(tmp_path_factory.mktemp("service"), webhook_limit_bytes=LIMIT)
    with running(settings, QUICK) as made:
        yield made


@pytest.fixture(params=SENDERS, ids=[each.name for each in SENDERS])
def sender(request: pytest.FixtureRequest) -> Sender:
    made: Sender = request.param
    return made


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    made = Parts.open(settings_at(tmp_path))
    yield made
    made.close()


def client(parts: Parts, **given: Any) -> TestClient:
    return TestClient(make_app(parts, **given), base_url="http://localhost", raise_server_exceptions=False)


def post(made: TestClient, sender: Sender, delivery_id: str = "d-1", **more: str) -> Any:
    headers, body = sender.send(sender.issue, delivery_id=delivery_id)
    return made.post(f"/webhooks/{sender.name}", headers={**headers, **more}, content=body)


# --- What is taken


def test_what_ends_work_is_queued_once_and_the_worker_is_told(parts: Parts, sender: Sender) -> None:
    woken: list[None] = []
    made = client(parts, wake=lambda: woken.append(None))
    first, second = post(made, sender), post(made, sender)
    assert (first.status_code, first.json()) == (202, {"status": "queued", "delivery": "d-1", "reason": ""})
    assert (second.status_code, second.json()["status"]) == (200, "duplicate")
    (entry,) = parts.logbook.deliveries.page(10)
    assert (entry.forge, entry.delivery_id, entry.state) == (sender.name, "d-1", "queued")
    assert entry.facts is not None
    assert entry.facts["kind"] == "issue_closed"
    assert len(woken) == 1


@pytest.mark.slow
def test_what_ends_no_work_is_noted_and_says_why(parts: Parts, sender: Sender) -> None:
    for number, quiet in enumerate(sender.quiet):
        headers, body = sender.send(quiet, delivery_id=f"d-{number}")
        answer = client(parts).post(f"/webhooks/{sender.name}", headers=headers, content=body)
        assert answer.status_code == 200
        assert answer.json()["status"] == "ignored"
        assert answer.json()["reason"]
    assert {each.state for each in parts.logbook.deliveries.page(100)} == {"ignored"}


def test_ids_of_one_forge_are_not_those_of_another(parts: Parts) -> None:
    assert [post(client(parts), each).status_code for each in SENDERS] == [202] * 4


def test_a_webhook_may_come_as_a_form_if_the_forge_sends_any(parts: Parts, sender: Sender) -> None:
    headers, body = sender.send_form(sender.issue)
    answer = client(parts).post(f"/webhooks/{sender.name}", headers=headers, content=body)
    assert answer.status_code == (202 if sender.form else 415)


def test_gitlabs_newer_signature_is_taken(tmp_path: Path) -> None:
    parts = Parts.open(settings_at(tmp_path, webhook_secrets={"gitlab": SIGNING}))
    body = orjson.dumps(GITLAB.issue.payload)
    now = int(parts.clock.now())
    headers = {"content-type": "application/json", **GITLAB.headers(GITLAB.issue.event, "d")}
    headers |= standard_signature(body, seconds=now)
    assert client(parts).post("/webhooks/gitlab", headers=headers, content=body).status_code == 202
    late = headers | standard_signature(body, seconds=now - 3600, marked="another")
    assert client(parts).post("/webhooks/gitlab", headers=late, content=body).status_code == 401
    parts.close()


@pytest.mark.slow
def test_a_thousand_replays_at_once_are_done_once(service: Running) -> None:
    headers, body = GITHUB.send(GITHUB.issue, delivery_id="replayed")
    with service.client() as made, ThreadPoolExecutor(16) as pool:
        sent = [
            pool.submit(made.post, "/webhooks/github", headers=headers, content=body)  # type: ignore[arg-type]
            for _ in range(1000)
        ]
        answers = [each.result() for each in sent]
    assert sorted(each.status_code for each in answers) == [200] * 999 + [202]
    known = [each for each in _entries(service) if each.delivery_id == "replayed"]
    assert len(known) == 1
    wait_until(lambda: _entries(service)[0].state == "done", "it is done")
    assert [each.attempts for each in _entries(service) if each.delivery_id == "replayed"] == [1]


def _entries(service: Running) -> list[Any]:
    assert service.service is not None
    return service.service.parts.logbook.deliveries.page(2000)


# --- What is refused


@pytest.mark.slow
def test_a_forge_without_a_secret_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with running(settings_at(tmp_path, webhook_secrets={"gitea": SECRET})) as service:
        head = b"POST /webhooks/github HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n"
        with service.connect() as connection:
            connection.sendall(head)
            assert status_of(connection.recv(65536)) == 403
        assert service.send(GITEA, GITEA.issue).status_code == 202


def test_a_webhook_without_a_signature_is_refused_before_its_body_is_read(service: Running, sender: Sender) -> None:
    head = f"POST /webhooks/{sender.name} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n".encode()
    with service.connect() as connection:
        connection.sendall(head)
        assert status_of(connection.recv(65536)) == 401


@pytest.mark.parametrize("named", ["", " ", "sha256=", "sha256=00", "x", "\x7f", "é"])
def test_a_wrong_signature_is_refused(parts: Parts, sender: Sender, named: str) -> None:
    headers, body = sender.send(sender.issue)
    (signed,) = FORGES[sender.name].signed_by[-1:]
    headers = {**headers, signed: named.encode("latin-1")}  # type: ignore[dict-item]
    answer = client(parts).post(f"/webhooks/{sender.name}", headers=headers, content=body)
    assert answer.status_code == 401
    assert error_of(answer)["kind"] == "denied"
    assert parts.logbook.deliveries.page(10) == []


def test_what_another_secret_signed_is_refused(parts: Parts, sender: Sender) -> None:
    headers, body = sender.send(sender.issue, "another-secret-of-some-length")
    answer = client(parts).post(f"/webhooks/{sender.name}", headers=headers, content=body)
    assert answer.status_code == 401


def test_what_was_changed_on_the_way_is_refused(parts: Parts) -> None:
    for sender in (each for each in SENDERS if each is not GITLAB):  # its token says nothing of the body
        headers, body = sender.send(sender.issue)
        answer = client(parts).post(f"/webhooks/{sender.name}", headers=headers, content=body + b" ")
        assert answer.status_code == 401


def test_the_path_says_whom_a_webhook_is_from_and_no_header(parts: Parts) -> None:
    for path, sender in ((first, second) for first in SENDERS for second in SENDERS if first is not second):
        headers, body = sender.send(sender.issue)
        answer = client(parts).post(f"/webhooks/{path.name}", headers=headers, content=body)
        if (path.name, sender.name) not in {("github", "gitea"), ("github", "forgejo"), ("gitea", "forgejo")}:
            assert answer.status_code == 401  # those three send the headers of the others, too
    assert {each.forge for each in parts.logbook.deliveries.page(100)} <= {"github", "gitea"}


@pytest.mark.parametrize("name", ["content-type", "x-github-event", "x-github-delivery", "x-hub-signature-256"])
def test_a_header_that_comes_twice_is_refused(parts: Parts, name: str) -> None:
    headers, body = GITHUB.send(GITHUB.issue)
    known = {key.lower(): value for key, value in headers.items()}
    twice = [*known.items(), (name, known[name])]
    answer = client(parts).post("/webhooks/github", headers=twice, content=body)
    assert answer.status_code == 400
    assert name in error_of(answer)["message"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/jsonp", "multipart/form-data; boundary=x", "text/json", ""]
)
def test_another_content_type_is_refused(parts: Parts, sender: Sender, kind: str) -> None:
    answer = post(client(parts), sender, **{"content-type": kind})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"action": "closed"', 400),
        (b"[]", 400),
        (b"null", 400),
        (b"\xff\xfe", 400),
        (b'{"action": NaN}', 400),
        (b"[" * 10_000 + b"]" * 10_000, 400),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 400),
        (b"{}", 422),
        (b'{"action": "closed"}', 422),
        (b'{"action": "closed", "issue": {"number": -1}}', 422),
    ],
)
def test_malformed_json_is_400_and_a_missing_field_422(parts: Parts, body: bytes, status: int) -> None:
    headers, body = GITHUB.send_body("issues", body)
    answer = client(parts).post("/webhooks/github", headers=headers, content=body)
    assert answer.status_code == status
    error_of(answer)
    assert parts.logbook.deliveries.page(10) == []


@pytest.mark.slow
def test_a_million_keys_are_read_and_refused(tmp_path: Path) -> None:
    parts = Parts.open(settings_at(tmp_path, webhook_limit_bytes=25 << 20))
    headers, body = GITHUB.send_body("issues", orjson.dumps({f"{number:x}": 0 for number in range(1_000_000)}))
    answer = client(parts).post("/webhooks/github", headers=headers, content=body)
    assert answer.status_code == 422
    assert "action" in error_of(answer)["message"]
    parts.close()


@pytest.mark.parametrize(("event", "words"), [("nothing", "no event"), ("", "missing"), ("../../etc", "no event")])
def test_an_unknown_event_is_422(parts: Parts, event: str, words: str) -> None:
    headers, body = GITHUB.send_body(event, b"{}")
    answer = client(parts).post("/webhooks/github", headers=headers, content=body)
    assert answer.status_code == 422
    assert words in error_of(answer)["message"]


@pytest.mark.parametrize(
    "path", ["/webhooks", "/webhooks/", "/webhooks/bitbucket", "/webhooks/github/", "/webhooks/GitHub"]
)
def test_there_are_no_other_forges(parts: Parts, path: str) -> None:
    headers, body = GITHUB.send(GITHUB.issue)
    assert client(parts).post(path, headers=headers, content=body).status_code == 404


def test_webhooks_are_posted(parts: Parts) -> None:
    answer = client(parts).get("/webhooks/github")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


# --- Sizes


def test_a_body_over_the_limit_is_refused_by_what_it_says(service: Running) -> None:
    head = f"POST /webhooks/github HTTP/1.1\r\nhost: localhost\r\ncontent-length: {LIMIT + 1}\r\n"
    with service.connect() as connection:
        connection.sendall(f"{head}x-hub-signature-256: sha256=0\r\n\r\n".encode())
        assert status_of(connection.recv(65536)) == 413


def test_a_body_over_the_limit_is_refused_as_it_comes(service: Running) -> None:
    headers, _ = GITHUB.send_body("issues", b"")
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    with service.connect() as connection:
        connection.sendall(
            f"POST /webhooks/github HTTP/1.1\r\nhost: localhost\r\n{lines}transfer-encoding: chunked\r\n\r\n".encode()
        )
        connection.sendall(chunk * (LIMIT // 0x4000 + 1))
        assert status_of(connection.recv(65536)) == 413


def test_who_sends_all_of_a_large_body_before_reading_gets_the_answer(service: Running) -> None:
    headers, body = GITHUB.send_body("issues", b" " * (8 << 20))
    answer = service.ask("POST", "/webhooks/github", headers=headers, content=body)
    assert answer.status_code == 413
    assert error_of(answer)["kind"] == "too_large"


def test_a_body_of_the_limit_is_taken(service: Running) -> None:
    webhook = GITHUB.issue.changed("padding", to="")
    size = len(orjson.dumps(webhook.payload))
    webhook = webhook.changed("padding", to="x" * (LIMIT - size))
    assert service.send(GITHUB, webhook, "large").status_code == 202
    webhook = webhook.changed("padding", to="x" * (LIMIT - size + 1))
    assert service.send(GITHUB, webhook, "larger").status_code == 413


@pytest.mark.slow
def test_a_body_that_does_not_come_whole_is_not_kept(service: Running) -> None:
    headers, body = GITHUB.send(GITHUB.issue, delivery_id="half")
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST /webhooks/github HTTP/1.1\r\nhost: localhost\r\n{lines}content-length: {len(body)}\r\n\r\n"
    with service.connect() as connection:
        connection.sendall(head.encode() + body[:-1])
        assert status_of(read_all(connection)) == 408
    with service.connect() as connection:
        connection.sendall(head.encode() + body[:-1])
    assert service.send(GITHUB, GITHUB.issue, "after").status_code == 202
    assert "half" not in {each.delivery_id for each in _entries(service)}


def test_only_so_much_is_held_in_memory_at_once(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "HELD_BYTES", 4096)
    monkeypatch.setattr(webhooks, "FREE_BYTES", 0)
    made = client(parts)
    large = GITHUB.issue.changed("padding", to="x" * 4096)
    headers, body = GITHUB.send(large)
    answer = made.post("/webhooks/github", headers=headers, content=body)
    assert answer.status_code == 503
    assert error_of(answer)["kind"] == "unavailable"
    small = GITHUB.issue.changed("padding", to="")
    headers, body = GITHUB.send(small)
    statuses = [made.post("/webhooks/github", headers=headers, content=body).status_code for _ in range(20)]
    assert statuses == [202] + [200] * 19


@pytest.mark.slow
def test_large_bodies_that_never_end_keep_usual_ones_out_of_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "HELD_BYTES", 1 << 20)
    head = "POST /webhooks/github HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += f"x-hub-signature-256: sha256=0\r\ncontent-length: {2 << 20}\r\n\r\n"
    with running(settings_at(tmp_path)) as service, service.connect() as connection:
        connection.sendall(head.encode() + b"x" * ((1 << 20) + webhooks.FREE_BYTES))
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert service.send(GITHUB, GITHUB.issue).status_code == 202


@pytest.mark.slow
def test_pages_that_take_for_ever_do_not_hold_webhooks_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    with running(settings_at(tmp_path)) as service, ThreadPoolExecutor(40) as readers:
        assert service.service
        registry = service.service.parts.metrics.registry
        monkeypatch.setattr(registry, "collect", lambda: over.wait(WAIT_S) and ())
        try:
            asked = [readers.submit(service.ask, "GET", "/metrics") for _ in range(40)]
            wait_until(lambda: service.ask("GET", "/healthz").status_code == 200, "the loop goes on")
            large = GITHUB.issue.changed("padding", to="x" * (200 << 10))
            headers, body = GITHUB.send(large)
            begun = time.monotonic()
            assert service.ask("POST", "/webhooks/github", headers=headers, content=body).status_code == 202
            assert time.monotonic() - begun < WAIT_S / 2
        finally:
            over.set()
        assert all(each.result().status_code == 200 for each in asked)


# --- When it cannot be kept


@pytest.mark.parametrize("kind", [Unavailable, Denied, Corrupt, Invalid])
def test_what_cannot_be_noted_is_no_success(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, kind: type[EverturnError]
) -> None:
    def refused(*_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(kind("/some/file cannot be written", hint="mend it"))
        return future

    monkeypatch.setattr(parts.logbook.deliveries, "put", refused)
    answer = post(client(parts), GITHUB)
    assert answer.status_code == 503
    assert error_of(answer) == {
        "kind": "unavailable",
        "message": "the webhook could not be noted",
        "hint": "send it again in a while; the service's log says why",
    }


def test_a_disk_that_does_not_answer_is_no_success(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "ANSWER_S", 0.05)
    monkeypatch.setattr(parts.logbook.deliveries, "put", lambda *_: Future())
    answer = post(client(parts), GITHUB)
    assert answer.status_code == 503
    assert error_of(answer)["kind"] == "unavailable"


def test_what_nobody_expected_is_a_500_without_a_trace(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Future[Any]:
        raise ZeroDivisionError("with a secret in it")

    monkeypatch.setattr(parts.logbook.deliveries, "put", broken)
    answer = post(client(parts), GITHUB)
    assert answer.status_code == 500
    assert error_of(answer)["kind"] == "failed"
    assert "ZeroDivisionError" not in answer.text
    (line,) = [orjson.loads(each.message) for each in caplog.records if "request_failed" in each.message]
    assert line["error"] == "ZeroDivisionError"
    assert line["route"] == "/webhooks/github"
    assert any(each.startswith("broken (") for each in line["trace"])
    assert "secret in it" not in caplog.text


# --- What is told of it


def test_refusals_are_logged_and_counted_without_what_was_sent(
    parts: Parts, sender: Sender, caplog: pytest.LogCaptureFixture
) -> None:
    counter = parts.metrics.webhooks.labels("refused")
    before = counter._value.get()
    headers, body = sender.send(sender.issue.changed("marked", to="hunter2"), "wrong-secret-hunter3")
    client(parts).post(f"/webhooks/{sender.name}", headers=headers, content=body)
    (line,) = [orjson.loads(each.message) for each in caplog.records if "webhook_refused" in each.message]
    assert (line["forge"], line["status"]) == (sender.name, 401)
    assert counter._value.get() == before + 1
    signed = {value for name, value in headers.items() if name.lower() in FORGES[sender.name].signed_by}
    assert not any(each in caplog.text for each in ("hunter", SECRET, *signed))


def test_a_webhook_is_answered_at_once_whatever_the_work(service: Running) -> None:
    service.send(GITHUB, GITHUB.issue, "first")
    begun = time.monotonic()
    for number in range(50):
        assert service.send(GITHUB, GITHUB.issue, f"quick-{number}").status_code == 202
    assert (
        time.monotonic() - begun
    ) / 50 < 0.5  # generous: machines that run tests are busy; `make bench-service` measures it
