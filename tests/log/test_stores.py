"""Stores by their URL, and what is checked before anything is trusted to them (docs/format.md, sections 2 and 5)."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from moto.core import set_initial_no_auth_action_count
from obstore.store import MemoryStore

from everturn.clock import Clock, ManualClock
from everturn.errors import Corrupt, Denied, Invalid, NotFound, Unavailable
from everturn.log.objects import BlockingObjects, run
from everturn.log.stores import admit, connect, locate, role_of
from everturn.settings import Settings
from everturn.testing import LoopbackS3
from everturn.testing.faults import Fault, FaultyObjects
from support import StorePlace

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def s3(
    server: LoopbackS3, bucket: str, monkeypatch: pytest.MonkeyPatch, clock: Clock | None = None, **settings: Any
) -> BlockingObjects:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return locate(f"s3://{bucket}/prefix", Settings.load(**settings), clock)


def keys(objects: FaultyObjects | BlockingObjects) -> list[str]:
    return sorted(item.key for item in run(objects.listing("")))


@pytest.fixture
def memory() -> FaultyObjects:
    return FaultyObjects(BlockingObjects(MemoryStore(), "memory://"))


# --- URLs ---


@pytest.mark.parametrize(
    "url",
    [
        "",
        "bucket/prefix",
        "/folder",
        "ftp://host/folder",
        "gs://bucket",
        "s3:///prefix",
        "s3:bucket",
        "s3://bucket/prefix?x=1",
        "s3://bucket/prefix#x",
        "s3://bucket/a//b",
        "s3://bucket/../other",
        "s3://bucket/a%2f..%2fb",
        "s3://name:password@bucket/prefix",
        "s3://bucket:9000/prefix",
        "s3://[bucket/prefix",
        "s3://name:password@[bucket/prefix",
        "s3://name:password@bucket\u2100/prefix",
        "s3://name:password@bucket/prefix?x=1",
        "https://bucket.example/prefix?signature=password",
        "file://host/folder",
        "file:folder",
        "file:///folder?x=1",
        "file:///a%00b",
        "memory://name",
        "memory:///folder",
    ],
)
def test_urls_that_name_no_store_are_refused(url: str) -> None:
    with pytest.raises(Invalid) as refusal:
        connect(url, Settings.load())
    assert refusal.value.hint
    assert "password" not in refusal.value.message


@pytest.mark.parametrize("url", ["https://name:password@host/folder", "file:///folder?signature=password"])
def test_a_store_without_roles_is_told_without_its_password(url: str) -> None:
    with pytest.raises(Invalid) as refusal:
        role_of(url, Settings.load(session_role="arn:aws:iam::123456789012:role/sessions"))
    assert "password" not in refusal.value.message


def test_a_file_is_no_folder_for_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(Invalid):
            connect(path.as_uri(), Settings.load())


def test_a_folder_is_made_with_all_above_it(tmp_path: Path) -> None:
    folder = tmp_path / "with space" / "ünd % and #"
    run(admit(connect(folder.as_uri(), Settings.load()), "scope", folder.as_uri()))
    assert (folder / "format.json").exists()


def test_every_store_in_memory_is_a_new_one() -> None:
    one, other = (connect("memory://", Settings.load()) for _ in range(2))
    run(one.create("key", b""))
    assert run(other.get("key")) is None


def test_a_prefix_keeps_stores_in_one_bucket_apart(s3_place: StorePlace) -> None:
    url = s3_place.url.rpartition("/")[0]
    one, other, below = (connect(f"{url}/{name}", s3_place.settings) for name in ("one/", "one2", "one/below"))
    run(one.create("key", b"1"))
    run(other.create("key", b"2"))
    run(below.create("key", b"3"))
    assert [keys(objects) for objects in (one, other, below)] == [["below/key", "key"], ["key"], ["key"]]


# --- Admission ---


def test_a_new_store_is_given_its_format_in_at_most_five_requests(memory: FaultyObjects) -> None:
    run(admit(memory, "acme/web#12", "memory://"))
    assert sum(memory.counts.values()) <= 5
    assert keys(memory) == ["format.json", "probes/acme!2fweb!2312.json"]
    stored = run(memory.get("format.json"))
    assert stored is not None
    assert json.loads(stored.data) == {"format": "everturn", "version": 1}


def test_a_store_in_use_is_admitted_in_two_requests(memory: FaultyObjects) -> None:
    run(admit(memory, "scope", "memory://"))
    memory.counts.clear()
    run(admit(memory, "scope", "memory://"))
    assert dict(memory.counts) == {"get": 1, "create": 1}


def test_every_kind_of_store_is_admitted_again_and_again(place: StorePlace) -> None:
    objects = connect(place.url, place.settings)
    for scope in ("one", "two", "one"):
        run(admit(objects, scope, place.url))
    assert keys(objects) == ["format.json", "probes/one.json", "probes/two.json"]


def test_two_that_open_a_new_store_at_once_agree(memory: FaultyObjects) -> None:
    class Race(FaultyObjects):
        async def create(self, key: str, data: bytes) -> bool:
            if key == "format.json":
                await memory.create(key, data)
            return await super().create(key, data)

    run(admit(Race(memory), "scope", "memory://"))
    run(admit(memory, "scope", "memory://"))
    assert keys(memory) == ["format.json", "probes/scope.json"]


@pytest.mark.parametrize("key", ["format.json", "probes/scope.json"])
def test_a_store_that_is_busy_with_another_that_opens_it_is_admitted(memory: FaultyObjects, key: str) -> None:
    memory.faults.append(Fault("busy", keys=key))
    run(admit(memory, "scope", "memory://"))
    assert "format.json" in keys(memory)


def test_a_store_of_a_newer_version_is_refused_and_left_as_it_was(memory: FaultyObjects) -> None:
    run(memory.create("format.json", b'{"format":"everturn","version":2}'))
    with pytest.raises(Invalid, match="version 2"):
        run(admit(memory, "scope", "memory://"))
    assert keys(memory) == ["format.json"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"1", b'"x"', b"{}", b'{"version":1}', b'{"format":"other","version":1}'],
)
def test_a_foreign_format_file_is_corrupt_and_left_as_it_was(memory: FaultyObjects, content: bytes) -> None:
    run(memory.create("format.json", content))
    with pytest.raises(Corrupt):
        run(admit(memory, "scope", "memory://"))
    assert keys(memory) == ["format.json"]


@pytest.mark.parametrize("scope", ["", "..", "a\nb", "x" * 241])
def test_a_scope_that_is_no_name_is_refused_and_nothing_is_written(memory: FaultyObjects, scope: str) -> None:
    with pytest.raises(Invalid):
        run(admit(memory, scope, "memory://"))
    assert keys(memory) == []


def test_a_store_that_overwrites_is_refused_and_left_as_it_was(memory: FaultyObjects) -> None:
    class Careless(FaultyObjects):
        async def create(self, key: str, data: bytes) -> bool:
            await self.put(key, data)
            return True

    with pytest.raises(Invalid, match="overwrites"):
        run(admit(Careless(memory), "scope", "memory://"))
    assert keys(memory) == []


def test_why_a_store_is_refused_is_told_though_its_probe_cannot_be_taken_back(memory: FaultyObjects) -> None:
    denied = Denied("not allowed", hint="ask")
    memory.faults += [
        Fault("fail", "create", keys="format.json", error=denied),
        Fault("fail", "delete", error=denied),
    ]
    with pytest.raises(Denied, match="is no store yet"):
        run(admit(memory, "scope", "memory://"))


# --- S3, for real ---


def test_a_server_that_ignores_if_none_match_is_refused_and_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(app: WsgiApp) -> WsgiApp:
        return lambda request, start: app(
            {name: value for name, value in request.items() if name != "HTTP_IF_NONE_MATCH"}, start
        )

    with LoopbackS3.start(wrap=careless) as server:
        objects = s3(server, server.create_bucket("careless"), monkeypatch)
        with pytest.raises(Invalid, match="overwrites"):
            run(admit(objects, "scope", "s3://careless"))
        assert keys(objects) == []


def test_a_missing_bucket_is_not_found(s3_server: LoopbackS3, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = s3(s3_server, "nowhere", monkeypatch)
    for request in (
        admit(objects, "scope", "s3://nowhere"),
        objects.create("key", b""),
        objects.put("key", b""),
        objects.get("key"),
        objects.get_many(["one", "two"]),
        objects.listing("folder"),
        objects.list_folders("folder"),
    ):
        with pytest.raises(NotFound, match="bucket"):
            run(request)


def test_deleting_in_a_missing_bucket_is_not_found(s3_server: LoopbackS3, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = s3(s3_server, "nowhere", monkeypatch)
    with pytest.raises(NotFound, match="bucket"):
        run(objects.delete(["key"]))


@pytest.mark.parametrize("act", ["admit", "create", "put", "get", "get_many", "listing", "list_folders", "delete"])
def test_credentials_that_the_server_does_not_know_are_denied(
    s3_server: LoopbackS3, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    objects = s3(s3_server, s3_server.fresh_bucket(), monkeypatch)
    requests = {
        "admit": lambda: admit(objects, "scope", "s3://bucket"),
        "create": lambda: objects.create("key", b""),
        "put": lambda: objects.put("key", b""),
        "get": lambda: objects.get("key"),
        "get_many": lambda: objects.get_many(["one", "two"]),
        "listing": lambda: objects.listing("folder"),
        "list_folders": lambda: objects.list_folders("folder"),
        "delete": lambda: objects.delete(["key"]),
    }

    # From here on the server looks at credentials; it knows nobody.
    @set_initial_no_auth_action_count(0)
    def ask() -> None:
        with pytest.raises(Denied):
            run(requests[act]())

    ask()


def test_an_endpoint_that_nobody_listens_at_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound, but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        server = LoopbackS3(f"http://127.0.0.1:{taken.getsockname()[1]}")
        objects = s3(server, "bucket", monkeypatch, request_timeout_s=1.0, retry_deadline_s=0.2)
        with pytest.raises(Unavailable):
            run(admit(objects, "scope", "s3://bucket"))


def test_a_server_that_is_always_overloaded_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def overloaded(_app: WsgiApp) -> WsgiApp:
        def answer(_request: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            start("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code></Error>"]

        return answer

    with LoopbackS3.start(wrap=overloaded) as server:
        objects = s3(server, "bucket", monkeypatch, ManualClock())
        with pytest.raises(Unavailable):
            run(admit(objects, "scope", "s3://bucket"))
        with pytest.raises(Unavailable):
            run(objects.create("key", b""))


def test_a_conflict_of_two_writes_is_told_apart_from_a_name_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    conflicts = iter([True])

    def conflicting(app: WsgiApp) -> WsgiApp:
        def answer(request: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            if "HTTP_IF_NONE_MATCH" not in request or not next(conflicts, False):
                return app(request, start)
            start("409 Conflict", [("Content-Type", "application/xml")])
            return [b"<Error><Code>ConditionalRequestConflict</Code></Error>"]

        return answer

    with LoopbackS3.start(wrap=conflicting) as server:
        objects = s3(server, server.create_bucket("conflicting"), monkeypatch)
        assert run(objects.create("key", b"x")) is False
        assert run(objects.get("key")) is None
        assert run(objects.create("key", b"x")) is True
