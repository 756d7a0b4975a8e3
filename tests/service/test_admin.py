"""Admin requests: what they may say, what they do, and what is noted of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from everturn.model import Claim, Holder, WorkItem
from everturn.service.offices import Admin
from everturn.service.parts import Parts
from everturn.service.sweeping import DailySweep
from everturn.service.web.app import make_app
from served import ADMIN_TOKEN, error_of, settings_at


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    made = Parts.open(settings_at(tmp_path))
    yield made
    made.close()


class Asker:
    """Asks with the token."""

    def __init__(self, parts: Parts) -> None:
        app = make_app(parts, office=Admin(parts, DailySweep.of(parts)))
        near = ("127.0.0.1", 4711)
        self._client = TestClient(app, base_url="http://localhost", client=near, raise_server_exceptions=False)

    def __call__(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
        asked = more or {"json": {} if body is None else body}
        headers |= asked.pop("headers", {})
        return self._client.post(path, headers=headers, **asked)


@pytest.fixture
def ask(parts: Parts) -> Asker:
    return Asker(parts)


def claimed(parts: Parts, task: str) -> Claim:
    return parts.registry.claim(WorkItem.task(task), Holder("a-worker", run_id="r1"), ttl_s=60)


def test_a_reset_says_what_it_would_do_and_does_it(parts: Parts, ask: Asker) -> None:
    claim = claimed(parts, "t1")
    parts.registry.release(claim)
    would = ask("/admin/reset", {"work": "task:t1", "dry_run": True})
    assert would.status_code == 200
    assert would.json()["dry_run"] is True
    assert [(each["kind"], each["name"]) for each in would.json()["fates"]] == [("session", "task:t1")]
    assert parts.registry.find(claim.session_id) is not None
    done = ask("/admin/reset", {"work": "task:t1"})
    assert [each["action"] for each in done.json()["fates"]] == ["dropped"]
    assert parts.registry.find(claim.session_id) is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"all": False}, 400),
        ({"all": True, "agent": "fixer"}, 400),
        ({"agent": " "}, 400),
        ({"agent": ""}, 422),
        ({"agent": 7}, 422),
        ({"all": "yes"}, 422),
        ({"all": 1}, 422),
        ({"all": True, "dry_run": "no"}, 422),
        ({"all": True, "dryrun": True}, 422),
        ({"agent": "x" * 3000}, 422),
        ([], 422),
        ("all", 422),
        (None, 400),
    ],
)
def test_a_reset_that_is_not_clear_is_refused_and_does_nothing(
    parts: Parts, ask: Asker, body: Any, status: int
) -> None:
    claim = claimed(parts, "t1")
    parts.registry.release(claim)
    answer = ask("/admin/reset", body)
    assert answer.status_code == status
    error_of(answer)
    assert parts.registry.find(claim.session_id) is not None


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b'{"all": true', 400),
        (b"\xff", 400),
        (b"[" * 10_000, 400),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 400),
        (b'{"all": true, "x": "' + b"y" * (64 << 10) + b'"}', 413),
    ],
)
def test_a_body_that_is_none_is_refused(ask: Asker, content: bytes, status: int) -> None:
    answer = ask("/admin/reset", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status
    error_of(answer)


@pytest.mark.slow
def test_what_was_sent_is_not_shown_again(ask: Asker) -> None:
    answer = ask("/admin/reset", {"agent": {"hunter2": "hunter3"}, "hunter4": 1})
    assert answer.status_code == 422
    assert not any(f"hunter{number}" in answer.text for number in (2, 3))


def test_a_sweep_says_what_it_would_do_and_does_it(parts: Parts, ask: Asker) -> None:
    assert ask("/admin/sweep", {"dry_run": True}).json()["dry_run"] is True
    assert parts.logbook.sweeps.last() is None
    assert ask("/admin/sweep").json() == {
        "dry_run": False,
        "dropped": [],
        "workdirs": {
            "freed_bytes": 0,
            "missing_bytes": 0,
            "dry_run": False,
            "seconds": 0.0,
            "notes": [],
            "fates": [],
        },
        "problems": [],
    }
    assert parts.logbook.sweeps.last() is not None


def test_a_session_is_dropped_only_by_force_while_somebody_holds_it(parts: Parts, ask: Asker) -> None:
    claim = claimed(parts, "t1")
    path = f"/admin/sessions/{claim.session_id}/drop"
    held = ask(path)
    assert held.status_code == 409
    assert error_of(held)["kind"] == "conflict"
    assert ask(path, {"force": True}).json() == {"session_id": claim.session_id, "work": "task:t1"}
    assert ask(path).status_code == 404


def test_a_session_that_is_not_there_is_not_compacted(ask: Asker) -> None:
    answer = ask("/admin/sessions/0c7b2a4e-0000-4000-8000-000000000000/compact")
    assert answer.status_code == 404
    assert error_of(answer)["kind"] == "not_found"


def test_what_was_asked_is_noted_and_what_came_of_it(parts: Parts, ask: Asker) -> None:
    ask("/admin/reset", {"work": "task:t1", "dry_run": True})
    ask("/admin/sessions/s1/drop")
    noted = [(each.source, each.action, each.state) for each in parts.logbook.acts.page(10)]
    assert noted == [("127.0.0.1", "drop", "refused"), ("127.0.0.1", "reset", "done")]
