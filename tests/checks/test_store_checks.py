"""Stores that are well, and stores that are not: what is found, and that nothing stays in them."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.core import set_initial_no_auth_action_count
from obstore.store import MemoryStore

from everturn.checks.findings import Check, Finding, examine
from everturn.checks.store import AREAS, StoreProbe, key_file, store
from everturn.clock import Ids, ManualClock, SystemClock
from everturn.log.objects import BlockingObjects, Stored, run
from everturn.log.stores import admit, connect
from everturn.settings import Settings
from everturn.testing import LoopbackS3
from everturn.testing.faults import Fault, FaultyObjects
from log.troubled import SLOW_DOWN, Answer, Troubled, refusing, troubled_server
from support import StorePlace

NO = refusing("403 Forbidden", "AccessDenied")
Findings = dict[str, Finding]


def found(findings: Iterator[Finding] | list[Finding]) -> Findings:
    """Return findings by their names. Of permissions there may be several; all others are said once."""
    listed = list(findings)
    names = [each.name for each in listed if each.name != "store.permissions"]
    assert len(names) == len(set(names))
    return {each.name.removeprefix("store."): each for each in listed}


def looked(settings: Settings, scope: str | None = None) -> Findings:
    """Look at a store as the doctor does."""
    check = Check("store.reachable", lambda: store(settings, scope, SystemClock(), Ids()), 60)
    return found(examine([check], SystemClock()))


def statuses(findings: Findings) -> dict[str, str]:
    return {name: each.status for name, each in findings.items() if each.status != "pass"}


def keys_in(settings: Settings) -> list[str]:
    return sorted(item.key for item in run(connect(settings.store_url(), settings).listing("")))


@pytest.fixture
def s3(s3_place: StorePlace) -> Settings:
    return Settings.load(store=s3_place.url)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[LoopbackS3, Troubled]]:
    with troubled_server() as both:
        yield both


@pytest.fixture
def trouble(
    served: tuple[LoopbackS3, Troubled], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Settings, Troubled]]:
    """A bucket on a server that can be made to misbehave."""
    server, troubles = served
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load(store=f"s3://{server.fresh_bucket()}/runs", retry_deadline_s=0.2)
    troubles.asked.clear()
    yield settings, troubles
    troubles.end()


# --- stores that are well ---


@pytest.mark.slow
@pytest.mark.parametrize("scope", [None, "acme/web#12"])
def test_a_new_bucket_is_well_and_stays_empty(s3: Settings, scope: str | None) -> None:
    findings = looked(s3, scope)
    assert statuses(findings) == {}
    assert findings.keys() == {
        "reachable", "read_after_write", "latency", "clock", "conditional_create", "permissions", "throttling",
    }  # fmt: skip
    assert "no transcripts in it yet" in findings["reachable"].message
    assert (scope or "--scope") in findings["permissions"].message
    assert keys_in(s3) == []


@pytest.mark.slow
@pytest.mark.parametrize("scope", [None, "acme/web#12", "other"])
def test_a_store_in_use_stays_as_it_is(s3: Settings, scope: str | None) -> None:
    objects = connect(s3.store_url(), s3)
    run(admit(objects, "acme/web#12", "s3"))
    before = keys_in(s3)
    findings = looked(s3, scope)
    assert statuses(findings) == {}
    assert "version 1" in findings["reachable"].message
    assert keys_in(s3) == before


def test_a_local_folder_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    settings = Settings.load(store=(tmp_path / "some" / "store").as_uri())
    findings = looked(settings)
    assert statuses(findings) == {}
    assert "will be made" in findings["reachable"].message
    assert list(tmp_path.iterdir()) == []


def test_a_local_folder_in_use_stays_as_it_is(file_place: StorePlace) -> None:
    settings = Settings.load(store=file_place.url)
    run(admit(connect(file_place.url, settings), "scope", "file"))
    folder = Path(file_place.url.removeprefix("file://"))
    before = sorted(folder.rglob("*"))
    assert statuses(looked(settings, "scope")) == {}
    assert sorted(folder.rglob("*")) == before


def test_encryption_by_s3_is_told_of_when_it_was_taken(s3: Settings) -> None:
    findings = looked(s3.model_copy(update={"s3_sse": "s3"}))
    assert statuses(findings) == {}
    assert "s3_sse = s3" in findings["encryption"].message


# --- stores that are not ---


def test_a_missing_bucket_fails_once(s3: Settings) -> None:
    findings = looked(s3.model_copy(update={"store": "s3://nowhere"}))
    assert statuses(findings) == {"reachable": "fail"}
    assert "no such bucket" in findings["reachable"].message


def test_an_endpoint_that_nobody_listens_at_fails_soon(s3: Settings) -> None:
    with socket.socket() as taken:  # bound, but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
        hasty = {"aws_endpoint_url": nowhere, "retry_deadline_s": 0.2}
        findings = looked(s3.model_copy(update=hasty))
    assert statuses(findings) == {"reachable": "fail"}
    assert "can be reached" in findings["reachable"].mend
    assert findings["reachable"].seconds < 10


def test_wrong_credentials_fail_and_say_what_to_check(s3: Settings) -> None:
    @set_initial_no_auth_action_count(0)  # the server knows nobody
    def look() -> Findings:
        return looked(s3)

    findings = look()
    assert statuses(findings) == {"reachable": "fail"}
    assert "credentials" in findings["reachable"].mend


@pytest.mark.slow
def test_a_store_that_ignores_if_none_match_fails_and_stays_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(app: Any) -> Any:
        return lambda request, start: app(
            {name: value for name, value in request.items() if name != "HTTP_IF_NONE_MATCH"}, start
        )

    with LoopbackS3.start(wrap=careless) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        settings = Settings.load(store=f"s3://{server.fresh_bucket()}/runs")
        findings = looked(settings)
        assert statuses(findings) == {"conditional_create": "fail"}
        assert "If-None-Match" in findings["conditional_create"].mend
        assert keys_in(settings) == []


def test_a_store_of_another_version_fails(s3: Settings) -> None:
    objects = connect(s3.store_url(), s3)
    run(objects.create("format.json", b'{"format":"everturn","version":9}'))
    findings = looked(s3)
    assert statuses(findings) == {"reachable": "fail"}
    assert "newer release" in findings["reachable"].mend


@pytest.mark.slow
def test_a_store_that_throttles_is_a_warning(trouble: tuple[Settings, Troubled]) -> None:
    settings, troubles = trouble
    troubles.troubles = [SLOW_DOWN]
    assert statuses(looked(settings)) == {"throttling": "warn"}


@pytest.mark.slow
def test_a_store_that_breaks_off_fails_where_it_does(trouble: tuple[Settings, Troubled]) -> None:
    settings, troubles = trouble
    troubles.rule = lambda request: (
        refusing("500 Broken", "InternalError") if request["REQUEST_METHOD"] == "PUT" else None
    )
    findings = looked(settings)
    assert statuses(findings) == {"write": "fail"}
    assert "InternalError" in findings["write"].message or "500" in findings["write"].message


# --- permissions ---


def refused(method: str, folder: str, *, listing: bool = False) -> Callable[[dict[str, Any]], Answer | None]:
    """Refuse requests of one kind below a folder of the store."""

    def rule(request: dict[str, Any]) -> Answer | None:
        lists = "list-type" in request["QUERY_STRING"]
        place = f"{request['PATH_INFO']}?{request['QUERY_STRING']}".replace("%2F", "/")
        hit = request["REQUEST_METHOD"] == method and lists == listing and f"runs/{folder}/" in place
        return NO if hit else None

    return rule


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "method", "listing", "act", "status"),
    [
        ("sessions", "PUT", False, "write", "fail"),
        ("sessions", "GET", False, "read", "fail"),
        ("sessions", "GET", True, "list", "fail"),
        ("homes", "PUT", False, "write", "fail"),
        ("homes", "GET", False, "read", "fail"),
        ("summaries", "PUT", False, "write", "warn"),
        ("traces", "PUT", False, "write", "warn"),
        ("holds", "GET", True, "list", "fail"),
        ("probes", "PUT", False, "write", "fail"),
    ],
)
def test_what_is_not_allowed_is_named_one_by_one(
    trouble: tuple[Settings, Troubled], folder: str, method: str, listing: bool, act: str, status: str
) -> None:
    settings, troubles = trouble
    troubles.rule = refused(method, folder, listing=listing)
    findings = looked(settings, "acme/web#12")
    assert statuses(findings) == {"permissions": status}
    told = findings["permissions"]
    assert f"may not {act}" in told.message
    assert f"({folder}/)" in told.message
    assert "AccessDenied" in told.message
    assert f"runs/{folder}/acme!2fweb!2312" in told.mend
    assert {"write": "s3:PutObject", "read": "s3:GetObject", "list": "s3:ListBucket"}[act] in told.mend
    troubles.rule = lambda _request: None
    assert keys_in(settings) == []


@pytest.mark.slow
def test_where_nothing_may_be_deleted_nothing_new_is_left_each_time(trouble: tuple[Settings, Troubled]) -> None:
    settings, troubles = trouble
    troubles.rule = lambda request: NO if request["QUERY_STRING"].startswith("delete") else None
    for _ in range(2):
        findings = looked(settings)
        assert statuses(findings) == {"permissions": "warn"}
        assert "may not delete" in findings["permissions"].message
        assert "s3:DeleteObject" in findings["permissions"].mend
        assert findings["conditional_create"].status == "pass"
    assert keys_in(settings) == ["probes/doctor.json"]


@pytest.mark.slow
def test_every_folder_of_a_scope_that_runs_use_is_tried(trouble: tuple[Settings, Troubled]) -> None:
    settings, troubles = trouble
    looked(settings, "scope")
    written = {line.split("/runs/")[1].split("/")[0] for line in troubles.asked if re.match("PUT.*/runs/", line)}
    assert written == {"probes", *(area.name for area in AREAS if "write" in area.tries)}


# --- roles ---

ROLE = "arn:aws:iam::123456789012:role/everturn"


@pytest.mark.slow
@pytest.mark.parametrize("scope", [None, "acme/web#12"])
def test_a_role_is_assumed_and_used(s3: Settings, scope: str | None) -> None:
    findings = looked(s3.model_copy(update={"session_role": ROLE}), scope)
    assert statuses(findings) == {}
    assert ROLE in findings["role"].message
    assert keys_in(s3) == []


@pytest.mark.parametrize(("role", "store"), [("everturn", None), (ROLE, "file:///nowhere")])
def test_a_role_that_cannot_be_assumed_fails_and_nothing_else_is_tried(
    s3: Settings, role: str, store: str | None
) -> None:
    findings = looked(s3.model_copy(update={"session_role": role, "store": store or s3.store}))
    assert statuses(findings) == {"role": "fail"}
    assert findings.keys() <= {"role", "space"}


# --- what only fakes can be made to do ---


class Shifted(FaultyObjects):
    """A store whose clock is off, and whose requests take their time."""

    def __init__(self, clock: ManualClock, off_s: float, slow_s: float = 0.0) -> None:
        super().__init__(BlockingObjects(MemoryStore(), "memory://", clock))
        self._times = (clock, off_s, slow_s)

    async def put(self, key: str, data: bytes) -> None:
        self._times[0].advance(self._times[2])
        await super().put(key, data)

    async def get(self, key: str) -> Stored | None:
        stored = await super().get(key)
        clock, off_s, _ = self._times
        return stored and Stored(stored.data, int(clock.now() + off_s) * 1000)


def probed(objects: FaultyObjects, clock: ManualClock) -> Findings:
    return found(StoreProbe(objects, "s3://bucket", None, "token", clock).look())


@pytest.mark.parametrize(
    ("off_s", "status"),
    [
        (0, "pass"),
        (-5, "pass"),
        (4, "pass"),
        (7, "warn"),
        (-7, "warn"),
        (299, "warn"),
        (-302, "fail"),
        (86_400, "fail"),
    ],
)
def test_clocks_that_are_apart_are_told(off_s: float, status: str) -> None:
    clock = ManualClock()
    findings = probed(Shifted(clock, off_s), clock)
    assert statuses(findings) == ({} if status == "pass" else {"clock": status})
    if status != "pass":
        assert "NTP" in findings["clock"].mend


def test_a_slow_store_is_a_warning_and_its_clock_is_not_blamed() -> None:
    clock = ManualClock()
    findings = probed(Shifted(clock, off_s=0, slow_s=20), clock)
    assert statuses(findings) == {"latency": "warn"}


def test_a_store_whose_listings_are_old_fails() -> None:
    clock = ManualClock()
    objects = Shifted(clock, off_s=0)
    objects.faults.append(Fault("hide", keys="sessions/*", times=None))
    assert statuses(probed(objects, clock)) == {"list_after_write": "fail"}
    objects.faults.clear()
    assert run(objects.listing("")) == []


# --- keys ---


KEY = "k1 AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@pytest.mark.parametrize(
    ("content", "mode", "status"),
    [(KEY, 0o600, "pass"), (KEY, 0o644, "warn"), ("k1 short", 0o600, "fail"), (None, 0, "fail")],
)
def test_a_key_file_is_read_and_its_keys_are_not_shown(
    tmp_path: Path, content: str | None, mode: int, status: str
) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    settings = Settings.load(encryption_key_file=path)
    (finding,) = examine([Check("store.key_file", lambda: key_file(settings))], SystemClock())
    assert finding.status == status
    assert KEY.split()[1] not in finding.message + finding.mend


def test_no_key_file_is_not_worth_a_word() -> None:
    assert list(key_file(Settings.load())) == []
