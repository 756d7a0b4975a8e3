"""What every response carries, and what hostile requests come to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from everturn.runtime import open_transcripts
from everturn.service.web.protocol import Limits
from forges.senders import GITHUB
from polling import wait_until
from served import ADMIN_TOKEN, Running, error_of, running, settings_at, status_of

BEARER = {"authorization": f"Bearer {ADMIN_TOKEN}"}
EVERYWHERE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
PAGES = ("/", "/sessions", "/search", "/disk", "/log", "/no/such/page", "/sessions/no-such-session")
PROGRAMS = (
    *("/healthz", "/readyz", "/metrics", "/api/fleet", "/api/openapi.json", "/api/nothing", "/webhooks/nothing"),
    *("/admin/nothing", "/live?since=x"),
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits = Limits(receive_s=2.0, idle_s=2.0, stall_s=0.5)
    settings = settings_at(tmp_path_factory.mktemp("service"), dashboard_refresh_s=0.1)
    open_transcripts(settings, "some-scope")  # there is a store, so that there can be a mirror
    with running(settings, limits) as made:
        wait_until(lambda: made.ask("GET", "/search?q=x").status_code == 200, "the mirror is there")
        yield made


@pytest.mark.parametrize("path", [*PAGES, *PROGRAMS])
def test_every_response_tells_browsers_to_be_careful(service: Running, path: str) -> None:
    answer = service.ask("GET", path)
    assert {name: answer.headers.get(name) for name in EVERYWHERE} == EVERYWHERE
    assert answer.headers["cache-control"] == "no-store"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "server" not in answer.headers
    assert ("script-src 'self'" in policy) == (path in PAGES)


@pytest.mark.parametrize("path", PAGES)
def test_pages_answer_with_pages_also_if_there_is_none(service: Running, path: str) -> None:
    answer = service.ask("GET", path)
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.status_code == (404 if "/no" in path else 200)


@pytest.mark.parametrize("path", ["/api/nothing", "/webhooks/nothing", "/api/", "/metrics/x"])
def test_programs_get_errors_in_json(service: Running, path: str) -> None:
    answer = service.ask("GET", path)
    assert answer.status_code == 404
    assert error_of(answer)["kind"] == "not_found"


@pytest.mark.parametrize("version", ["abc", "1.x", "9" * 5000])
def test_metrics_are_told_whatever_is_accepted(service: Running, version: str) -> None:
    answer = service.ask("GET", "/metrics", headers={"accept": f"application/openmetrics-text;version={version}"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
@pytest.mark.parametrize("path", ["/", "/healthz", "/api/fleet", "/static/everturn.css", "/live"])
def test_nothing_else_can_be_done_where_there_is_something_to_see(service: Running, method: str, path: str) -> None:
    answer = service.ask(method, path)
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/readyz", "/metrics", "/api/fleet", "/static/everturn.css", "/live"]
)
def test_head_is_answered_everywhere_and_has_no_body(service: Running, path: str) -> None:
    answer = service.ask("HEAD", path)
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "target",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/%2e%2e/settings.py",
        "/static/....//app.py",
        "/static//etc/passwd",
        "/static/%00",
        "/static/everturn.css%00.html",
        "/static/C:\\windows",
        "/static/%ff%fe",
        "/../../../etc/passwd",
        "/sessions/../../etc/passwd",
        "/sessions/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/sessions/%00",
        "/sessions/%0d%0aset-cookie:%20x=1",
        "/api/sessions/..%2f..%2f",
        "/api/sessions/%ed%a0%80",
        "//evil.example/",
        "//evil.example/%2e%2e",
        "/\\evil.example",
        "/sessions//evil.example/..",
        "http://evil.example/",
        "/%0d%0aset-cookie:%20x=1",
        "/?next=%0d%0aset-cookie:%20x=1",
        "/search?q=%0d%0aset-cookie:%20x=1",
        "/sessions?q=" + "%f0%9f%8e%89" * 500,
        "/log?before=%00",
        "/log?before=99999999999999999999999999",
        "/api/log?before=-1",
        "/live?since=99999999999999999999999999",
        "/live?since=%C2%B2",
        "*",
    ],
)
def test_no_target_leads_anywhere_else_or_adds_a_header(service: Running, target: str) -> None:
    said = service.raw(f"GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
    head = said.partition(b"\r\n\r\n")[0].lower()
    not_built = (503,) if target.startswith("/search") else ()  # there is no mirror here
    assert status_of(said) in (200, 400, 404, 422, *not_built), said[:200]
    assert b"set-cookie" not in head
    assert b"location:" not in head
    assert b"root:" not in said
    assert b"traceback" not in said.lower()


@pytest.mark.parametrize(
    "path",
    [
        "/admin/sessions/..%2f..%2fx/drop",
        "/admin/sessions/%00/drop",
        "/admin/sessions/a%0d%0ab/drop",
        "/admin/sessions//drop",
    ],
)
def test_hostile_session_ids_are_refused(service: Running, path: str) -> None:
    answer = service.ask("POST", path, json={}, headers=BEARER)
    assert answer.status_code in (404, 422)
    error_of(answer)


def test_a_body_where_none_is_wanted_changes_nothing(service: Running) -> None:
    assert service.ask("GET", "/healthz", content=b"x" * 1000).status_code == 200
    answer = service.ask("GET", "/healthz", content=b"x" * (1 << 20))
    assert answer.status_code == 413
    assert error_of(answer)["kind"] == "too_large"


def test_a_head_with_too_many_headers_is_refused(service: Running) -> None:
    lines = b"".join(b"x-%d: y\r\n" % number for number in range(200))
    assert (
        status_of(service.raw(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n" + lines + b"\r\n")) == 431
    )


def test_streams_that_nobody_reads_are_let_go_of(service: Running) -> None:
    gauge = service.service.parts.metrics.dashboard_streams if service.service else None
    assert gauge is not None
    connections = [service.connect() for _ in range(20)]
    for each in connections:
        each.sendall(b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n")
    wait_until(lambda: gauge._value.get() == 20, "all streams are there")
    assert service.ask("GET", "/api/fleet").status_code == 200
    assert service.send(GITHUB, GITHUB.quiet[0], "beside-streams").status_code == 200
    for each in connections:
        each.close()
    wait_until(lambda: gauge._value.get() == 0, "all streams are gone")
