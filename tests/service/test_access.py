"""Who may come in: the read token, the admin token, the names that the service goes by."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from everturn.service.offices import Admin
from everturn.service.parts import Parts
from everturn.service.sweeping import DailySweep
from everturn.service.views.desk import Desk
from everturn.service.web.access import is_loopback
from everturn.service.web.app import make_app
from everturn.service.web.guards import names_of
from served import ADMIN_TOKEN, READ_TOKEN, error_of, settings_at

NEAR, FAR = ("127.0.0.1", 4711), ("192.0.2.7", 4711)
PRIVATE = ("/", "/sessions", "/static/everturn.css", "/metrics", "/api/openapi.json", "/nothing")
ADMIN = ("/admin/reset", "/admin/sweep", "/admin/sessions/s/drop", "/admin/sessions/s/compact", "/admin/nothing")


def client(folder: Path, peer: tuple[str, int] = NEAR, host: str = "127.0.0.1", **given: Any) -> TestClient:
    parts = Parts.open(settings_at(folder, **given))
    app = make_app(parts, Desk(parts), office=Admin(parts, DailySweep.of(parts)), host=host)
    return TestClient(app, base_url=f"http://{host}", client=peer, raise_server_exceptions=False)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


# --- Reading


@pytest.mark.parametrize("path", PRIVATE)
def test_without_a_read_token_anybody_may_read(tmp_path: Path, path: str) -> None:
    assert client(tmp_path).get(path).status_code != 401


@pytest.mark.parametrize("path", PRIVATE)
def test_with_a_read_token_nothing_is_shown_to_who_has_none(tmp_path: Path, path: str) -> None:
    answer = client(tmp_path, read_token=READ_TOKEN).get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic ")


@pytest.mark.slow
@pytest.mark.parametrize("headers", [bearer(READ_TOKEN), basic("", READ_TOKEN), basic("anybody", READ_TOKEN)])
@pytest.mark.parametrize("path", PRIVATE)
def test_the_read_token_opens_by_itself_or_as_anybodys_password(
    tmp_path: Path, path: str, headers: dict[str, str]
) -> None:
    assert client(tmp_path, read_token=READ_TOKEN).get(path, headers=headers).status_code != 401


@pytest.mark.parametrize(
    "headers",
    [
        bearer("wrong"),
        bearer(READ_TOKEN + "x"),
        bearer(READ_TOKEN[:-1]),
        bearer(""),
        bearer(ADMIN_TOKEN),
        basic(READ_TOKEN, "wrong"),
        basic(READ_TOKEN, ""),
        {"authorization": "Basic not base64"},
        {"authorization": "Basic " + b64encode(READ_TOKEN.encode()).decode()},
        {"authorization": READ_TOKEN},
        {"authorization": f"Digest {READ_TOKEN}"},
        {"x-authorization": f"Bearer {READ_TOKEN}"},
        {"cookie": f"token={READ_TOKEN}"},
    ],
)
def test_nothing_else_opens_what_is_to_be_read(tmp_path: Path, headers: dict[str, str]) -> None:
    answer = client(tmp_path, read_token=READ_TOKEN).get("/api/openapi.json", headers=headers)
    assert answer.status_code == 401
    assert error_of(answer)["kind"] == "denied"
    assert READ_TOKEN not in answer.text


def test_a_token_in_the_address_opens_nothing(tmp_path: Path) -> None:
    assert client(tmp_path, read_token=READ_TOKEN).get(f"/?token={READ_TOKEN}").status_code == 401


def test_two_tokens_at_once_open_nothing(tmp_path: Path) -> None:
    made = client(tmp_path, read_token=READ_TOKEN)
    headers = [("authorization", f"Bearer {READ_TOKEN}"), ("authorization", f"Bearer {READ_TOKEN}")]
    assert made.get("/metrics", headers=headers).status_code == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_need_no_token_and_no_name(tmp_path: Path, path: str) -> None:
    answer = client(tmp_path, read_token=READ_TOKEN).get(path, headers={"host": "10.0.0.7:8420"})
    assert answer.status_code == 200


@pytest.mark.slow
def test_wrong_tokens_are_counted_and_logged_and_never_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "everturn")
    made = client(tmp_path, read_token=READ_TOKEN)
    answer = made.get("/metrics", headers=bearer(READ_TOKEN))
    before = _count(answer.text, 'access_refused_total{door="read"}')
    made.get("/metrics", headers=bearer("hunter2-hunter2-hunter2"))
    made.get("/metrics")  # what a browser does before it asks for a password: no attempt
    assert _count(made.get("/metrics", headers=bearer(READ_TOKEN)).text, 'refused_total{door="read"}') == before + 1
    refused = [record.message for record in caplog.records if "access_refused" in record.message]
    assert len(refused) == 1
    assert "hunter2" not in caplog.text
    assert READ_TOKEN not in caplog.text


def _count(metrics: str, name: str) -> float:
    return next(float(line.rpartition(" ")[2]) for line in metrics.splitlines() if name in line)


# --- Admin


@pytest.mark.parametrize("path", ADMIN)
@pytest.mark.parametrize("headers", [{}, bearer("anything-at-all-here"), bearer("")])
def test_without_an_admin_token_admin_is_off(tmp_path: Path, path: str, headers: dict[str, str]) -> None:
    answer = client(tmp_path, admin_token=None).post(path, headers=headers, json={})
    assert answer.status_code == 403
    assert error_of(answer)["message"] == "admin is off"


@pytest.mark.parametrize("path", ADMIN)
@pytest.mark.parametrize(
    "headers", [{}, bearer("wrong"), bearer(READ_TOKEN), basic("", ADMIN_TOKEN), {"authorization": ADMIN_TOKEN}]
)
def test_admin_requests_need_the_admin_token_as_a_bearer_token(
    tmp_path: Path, path: str, headers: dict[str, str]
) -> None:
    answer = client(tmp_path, read_token=READ_TOKEN).post(path, headers=headers, json={})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer ")


def test_admin_requests_need_a_token_before_their_body_is_looked_at(tmp_path: Path) -> None:
    answer = client(tmp_path).post("/admin/reset", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        (FAR, {}),
        (NEAR, {"x-forwarded-for": "127.0.0.1"}),
        (NEAR, {"x-forwarded-host": "localhost"}),
        (NEAR, {"forwarded": "for=127.0.0.1"}),
        (NEAR, {"via": "1.1 proxy"}),
        (NEAR, {"x-real-ip": "127.0.0.1"}),
    ],
)
def test_admin_requests_from_elsewhere_are_refused_unless_that_is_set(
    tmp_path: Path, peer: tuple[str, int], headers: dict[str, str]
) -> None:
    asked = {"headers": {**headers, **bearer(ADMIN_TOKEN)}, "json": {}}
    refused = client(tmp_path, peer).post("/admin/sweep", **asked)
    assert refused.status_code == 403
    assert "from this machine" in error_of(refused)["message"]
    assert client(tmp_path, peer, admin_remote=True).post("/admin/sweep", **asked).status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_what_a_form_of_another_site_can_send_is_no_admin_request(tmp_path: Path, kind: str) -> None:
    headers = {**bearer(ADMIN_TOKEN), "content-type": kind}
    answer = client(tmp_path).post("/admin/reset", content=b'{"all": true}', headers=headers)
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.7", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(address: str, near: bool) -> None:
    assert is_loopback(address) is near


# --- Names


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "localhost:8420", "LOCALHOST", "localhost."])
def test_on_loopback_the_service_goes_by_the_names_of_loopback(tmp_path: Path, name: str) -> None:
    assert client(tmp_path).get("/metrics", headers={"host": name}).status_code == 200


@pytest.mark.parametrize(
    "name", ["evil.example", "localhost.evil.example", "evil.example:8420", "", "[::2]", "a@b", "["]
)
@pytest.mark.parametrize("path", ["/", "/api/openapi.json", "/metrics", "/admin/sweep", "/webhooks/github"])
def test_a_page_whose_name_leads_here_gets_nothing(tmp_path: Path, path: str, name: str) -> None:
    answer = client(tmp_path).get(path, headers={"host": name})
    assert answer.status_code == 421


def test_names_that_are_set_are_the_only_ones_besides(tmp_path: Path) -> None:
    made = client(tmp_path, host="192.0.2.7", serve_names=("Fleet.example.org",))
    said = {name: made.get("/metrics", headers={"host": name}).status_code for name in ("fleet.example.org", "x.org")}
    assert said == {"fleet.example.org": 200, "x.org": 421}
    assert made.get("/metrics", headers={"host": "localhost"}).status_code == 200


def test_the_name_that_was_given_to_listen_on_is_one_of_its_own(tmp_path: Path) -> None:
    made = client(tmp_path, serve_host="everturn.internal")  # which leads to 127.0.0.1
    said = {name: made.get("/metrics", headers={"host": name}).status_code for name in ("everturn.internal", "x.org")}
    assert said == {"everturn.internal": 200, "x.org": 421}


def test_elsewhere_the_service_goes_by_any_name(tmp_path: Path) -> None:
    assert names_of(("0.0.0.0",), (), is_loopback=False) == ()
    assert client(tmp_path, host="192.0.2.7").get("/metrics", headers={"host": "x.org"}).status_code == 200
