"""The API, over HTTP without a network: what it answers, and that nothing that is asked makes it fail."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from everturn.journal.events import Assistant, Ended, Prompt
from everturn.service.web.app import make_app
from service.ground import Fleet, begun, issue, turn

BASE = "http://127.0.0.1"


@pytest.fixture
def client(fleet: Fleet) -> TestClient:
    return TestClient(make_app(fleet.parts, fleet.desk), BASE)


def get(client: TestClient, path: str, status: int = 200, **params: object) -> Any:
    response = client.get(f"/api/{path}", params=params)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


def test_the_fleet_and_its_sessions_are_told_in_json(fleet: Fleet, client: TestClient) -> None:
    claim = fleet.claim(issue(7), "1" * 20)
    fleet.keep(claim, [*begun(claim), *turn("the tap")])
    (live,) = get(client, "fleet")["live"]
    assert (live["work"], live["turn"], live["cost_usd"], live["tool"]) == (issue(7).key, 1, 0.5, None)
    listed = get(client, "sessions", q="acme", state="live", limit=10)
    assert (listed["total"], listed["sessions"][0]["session_id"]) == (1, claim.session_id)


def test_a_session_is_told_turn_by_turn(fleet: Fleet, client: TestClient) -> None:
    claim = fleet.ran(issue(7), "1" * 20, words="the tap")
    found = get(client, f"sessions/{claim.session_id}")
    (placed,) = found["turns"]
    assert (found["source"], found["total"], placed["position"], placed["cost_usd"]) == ("journals", 1, 1, 0.5)
    assert placed["turn"]["prompt"] == [{"text": "Mend the tap.", "kind": "text"}]
    assert [step["kind"] for step in placed["turn"]["steps"]] == ["tool_call", "text"]
    by_work = get(client, f"sessions/{quote(issue(7).key, safe='')}")
    assert by_work["session"]["session_id"] == claim.session_id


def test_half_a_character_in_a_journal_breaks_nothing(fleet: Fleet, client: TestClient) -> None:
    claim = fleet.claim(issue(7), "1" * 20)
    said = Assistant("half a \ud83d character", "m1", "m\udc00")
    fleet.keep(claim, [*begun(claim), Prompt("go", resumed=False), said, Ended("completed")])
    found = get(client, f"sessions/{claim.session_id}")
    assert "half a ? character" in str(found["turns"])


def test_searches_stats_watchdog_disk_and_log_are_told(fleet: Fleet, client: TestClient) -> None:
    fleet.ran(issue(7), "1" * 20, words="the needle")
    fleet.parts.logbook.deliveries.put("github", "d1", "push", None, "a push frees nothing").result(10)
    get(client, "fleet")
    hits = get(client, "search", q="needle", agent="fixer")["hits"]
    assert {hit["run_id"] for hit in hits} == {"1" * 20}
    assert isinstance(hits[0]["at"], float)
    assert get(client, "stats", by="agent")["groups"][0]["key"] == "fixer"
    assert {sign["name"] for sign in get(client, "watchdog")["signs"]} >= {"sweeper", "store", "registry"}
    assert get(client, "disk")["trees_bytes"] == 0
    (entry,) = get(client, "log", kind="webhook")["entries"]
    assert (entry["source"], entry["state"], entry["title"]) == ("github", "ignored", "push")


@pytest.mark.parametrize(
    ("path", "params", "status", "kind"),
    [
        ("sessions", {"state": "asleep"}, 422, "invalid"),
        ("sessions", {"limit": 0}, 422, "invalid"),
        ("sessions", {"limit": 100_000}, 422, "invalid"),
        ("sessions", {"offset": -1}, 422, "invalid"),
        ("sessions", {"q": "x" * 5000}, 422, "invalid"),
        ("sessions/none-such", {}, 404, "not_found"),
        ("sessions/%20", {}, 400, "invalid"),
        ("search", {}, 422, "invalid"),
        ("search", {"q": "-only"}, 400, "invalid"),
        ("search", {"q": "x", "since": "yesterday"}, 422, "invalid"),
        ("search", {"q": "x", "since": "nan"}, 422, "invalid"),
        ("search", {"q": "needle", "until": "inf"}, 422, "invalid"),
        ("search", {"q": "needle"}, 503, "unavailable"),
        ("stats", {"by": "moon"}, 422, "invalid"),
        ("log", {"before": "here"}, 400, "invalid"),
        ("log", {"kind": "moon"}, 422, "invalid"),
        ("none-such", {}, 404, "not_found"),
    ],
)
def test_what_cannot_be_answered_is_said_in_json(
    client: TestClient, path: str, params: dict[str, Any], status: int, kind: str
) -> None:
    found = get(client, path, status, **params)["error"]
    assert found["kind"] == kind
    assert found["message"]
    assert found["hint"]


def test_the_document_names_every_answer(client: TestClient) -> None:
    document = get(client, "openapi.json")
    paths = {path for path in document["paths"] if path.startswith("/api/")}
    assert paths == {
        *("/api/fleet", "/api/sessions", "/api/sessions/{named}", "/api/search", "/api/stats", "/api/watchdog"),
        *("/api/disk", "/api/log"),
    }
    for path in paths:
        answers = document["paths"][path]["get"]["responses"]
        assert {"200", "400", "401", "422", "503"} <= set(answers)
        assert "$ref" in answers["200"]["content"]["application/json"]["schema"]
