"""S3 Express: the whole log on directory buckets, and the fake's rules, without which that would prove little."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

import anyio
import pytest
from claude_agent_sdk import SessionKey
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.test import Client, TestResponse

from everturn import Fenced, Invalid, NotFound, Settings, TranscriptStore
from everturn.clock import Ids, ManualClock, SystemClock
from everturn.log.objects import BlockingObjects, run
from everturn.log.reader import read
from everturn.log.stores import admit, locate
from everturn.log.writer import LogWriter
from everturn.testing import DirectoryBuckets, LoopbackExpress
from log.bench import FOLDER, Recorder
from log.troubled import SLOW_DOWN, Troubled, hang_up
from support import StorePlace, assert_conforms

BUCKET = "agents--usw2-az1--x-s3"
HOST = f"https://{BUCKET}.s3express-usw2-az1.us-west-2.amazonaws.com"
OTHER_BUCKET = "others--usw2-az1--x-s3"
NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
KEY: SessionKey = {"project_key": "-home-a", "session_id": "7df19cb2-f002-4f12-a0f4-5b4be6b08923"}


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[LoopbackExpress, Troubled]]:
    trouble = Troubled()
    with LoopbackExpress.start(wrap=trouble) as server:
        yield server, trouble


@pytest.fixture
def express(served: tuple[LoopbackExpress, Troubled], monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackExpress]:
    for name, value in served[0].environment.items():
        monkeypatch.setenv(name, value)
    yield served[0]
    served[1].end()


@pytest.fixture
def trouble(served: tuple[LoopbackExpress, Troubled], express: LoopbackExpress) -> Troubled:
    return served[1]


@pytest.fixture
def place(express: LoopbackExpress) -> StorePlace:
    return StorePlace(f"s3://{express.fresh_bucket()}/some/prefix", Settings.load())


@pytest.fixture
def objects(place: StorePlace) -> BlockingObjects:
    return locate(place.url, place.settings)


def writer(objects: BlockingObjects, epoch: int = 0) -> LogWriter:
    return LogWriter(objects, FOLDER, clock=SystemClock(), ids=Ids(), observer=Recorder(), epoch=epoch)


def numbers(objects: BlockingObjects) -> list[int]:
    return [entry["n"] for entry in run(read(objects, FOLDER)).entries()]


# --- The log on directory buckets ---


def test_a_store_is_admitted_and_admitted_again(objects: BlockingObjects, place: StorePlace) -> None:
    for scope in ("one", "two", "one"):
        run(admit(objects, scope, place.url))
    found = sorted(item.key for item in run(objects.listing("")))
    assert found == ["format.json", "probes/one.json", "probes/two.json"]


@pytest.mark.slow
def test_a_log_is_written_read_and_truncated(objects: BlockingObjects) -> None:
    guest = writer(objects)
    for number in range(12):
        run(guest.append([{"n": number}]))
    assert numbers(objects) == list(range(12))
    run(guest.truncate())
    run(guest.append([{"n": 99}]))
    assert numbers(objects) == [99]


@pytest.mark.slow
def test_writers_interleave_and_claims_fence(objects: BlockingObjects) -> None:
    one, two = writer(objects), writer(objects)
    for number in range(6):
        run((one, two)[number % 2].append([{"n": number}]))
    assert numbers(objects) == list(range(6))
    old, new = writer(objects, epoch=1), writer(objects, epoch=2)
    run(old.open())
    run(new.open())
    with pytest.raises(Fenced):
        run(old.append([{"n": 7}]))
    run(new.append([{"n": 6}]))
    assert numbers(objects) == list(range(7))


def test_objects_are_listed_by_folder_overwritten_and_deleted(objects: BlockingObjects) -> None:
    for key in ("a/1", "a/b/2", "ab/3"):
        assert run(objects.create(key, b"old"))
        assert not run(objects.create(key, b"new"))
    run(objects.put("a/1", b"new"))
    assert sorted(item.key for item in run(objects.listing("a"))) == ["a/1", "a/b/2"]
    assert sorted(run(objects.list_folders(""))) == ["a", "ab"]
    run(objects.delete(["a/1", "missing"]))
    found = run(objects.get_many(["a/1", "a/b/2"]))
    assert [stored and stored.data for stored in found] == [None, b"old"]


@pytest.mark.parametrize("kind", [SLOW_DOWN, hang_up], ids=["slow-down", "hang-up"])
@pytest.mark.parametrize("page", [10, 1])
def test_a_listing_of_many_pages_that_breaks_off_is_whole_all_the_same(
    place: StorePlace, trouble: Troubled, monkeypatch: pytest.MonkeyPatch, kind: Any, page: int
) -> None:
    monkeypatch.setattr("everturn.log.objects.PAGE", page)
    objects = locate(place.url, place.settings, ManualClock())
    keys = [f"c/{number:02}" for number in range(page * 2 + 5)]
    for key in keys:
        run(objects.create(key, b""))
    pages = iter([None, kind, None, None])

    def small_pages(request: dict[str, Any]) -> Any:
        if "list-type" not in request["QUERY_STRING"]:  # a session is asked for first
            return None
        request["QUERY_STRING"] += f"&max-keys={page}"
        return next(pages, None)

    trouble.rule = small_pages
    found = [item.key for item in run(objects.listing("c"))]
    assert sorted(found) == keys
    assert found[0] != keys[0]


@pytest.mark.slow
def test_a_store_keeps_sessions_and_their_subtranscripts(place: StorePlace) -> None:
    async def main() -> None:
        async with TranscriptStore.open(place.url, scope="task", any_cwd=True, settings=place.settings) as store:
            for number in range(3):
                await store.append(KEY, [{"type": "user", "uuid": f"u{number}"}])
            await store.append({**KEY, "subpath": "subagents/agent-1"}, [{"type": "user", "uuid": "s"}])
        async with TranscriptStore.open(place.url, scope="task", any_cwd=True, settings=place.settings) as store:
            elsewhere: SessionKey = {**KEY, "project_key": "-srv-b"}
            assert [entry.get("uuid") for entry in await store.load(elsewhere) or []] == ["u0", "u1", "u2"]
            assert await store.list_subkeys({**KEY}) == ["subagents/agent-1"]
            assert [row["session_id"] for row in await store.list_sessions("-home-a")] == [KEY["session_id"]]
            await store.delete(KEY)
            assert await store.load(KEY) is None

    anyio.run(main)


@pytest.mark.slow
def test_the_store_passes_the_sdks_conformance_suite(place: StorePlace) -> None:
    anyio.run(assert_conforms, place)


# --- Which bucket is one ---


def test_a_missing_directory_bucket_is_not_found(express: LoopbackExpress) -> None:
    objects = locate("s3://nowhere--usw2-az1--x-s3/prefix", Settings.load())
    with pytest.raises(NotFound, match="no such bucket"):
        run(objects.get("a"))


@pytest.mark.parametrize(
    "bucket",
    [
        "agents",
        "agents--x-s3",
        "--usw2-az1--x-s3",
        "Agents--usw2-az1--x-s3",
        "a.b--usw2-az1--x-s3",
        "xn--a--usw2-az1--x-s3",
        "a" * 60 + "--usw2-az1--x-s3",
    ],
)
def test_a_bucket_that_is_said_to_be_one_has_to_have_such_a_name(bucket: str) -> None:
    with pytest.raises(Invalid, match="no name of an S3 Express bucket"):
        locate(f"s3://{bucket}/prefix", Settings.load(s3_express=True))


def test_an_endpoint_of_ones_own_and_a_directory_bucket_do_not_go_together() -> None:
    with pytest.raises(Invalid, match="its zone's own address"):
        locate(f"s3://{BUCKET}/prefix", Settings.load(aws_endpoint_url="http://127.0.0.1:1"))


def test_a_directory_bucket_is_not_told_how_to_encrypt() -> None:
    with pytest.raises(Invalid, match="encrypts as it was set up to"):
        locate(f"s3://{BUCKET}/prefix", Settings.load(s3_sse="kms"))


def test_a_gateway_may_serve_a_bucket_of_such_a_name_as_an_ordinary_one(
    express: LoopbackExpress, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = express.fresh_bucket()
    monkeypatch.delenv("HTTPS_PROXY")
    objects = locate(f"s3://{bucket}/p", Settings.load(s3_express=False, aws_endpoint_url=express.server.url))
    assert run(objects.create("a", b"x"))
    assert [item.key for item in run(objects.listing(""))] == ["a"]


# --- The fake keeps the rules ---


class Browser:
    """Sends requests to the fake as a careful client would, but for what a test changes."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        app = DomainDispatcherApplication(create_backend_app)
        for bucket in (BUCKET, OTHER_BUCKET):
            Client(app).put(f"/{bucket}", base_url="http://127.0.0.1")
        self._client = Client(DirectoryBuckets(app, self.clock))
        self.headers = {"authorization": self.signed_by("loopback")}
        credentials = ET.fromstring(self.ask("GET", "/?session").data)[0]
        self.headers = {
            "authorization": self.signed_by(credentials.findtext(f"{NAMESPACE}AccessKeyId", "")),
            "x-amz-s3session-token": credentials.findtext(f"{NAMESPACE}SessionToken", ""),
        }

    @staticmethod
    def signed_by(key_id: str) -> str:
        scope = "20260101/us-west-2/s3/aws4_request"
        return f"AWS4-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders=host, Signature=0"

    def ask(
        self, method: str, path: str, data: bytes = b"", base_url: str = HOST, **headers: str | None
    ) -> TestResponse:
        """Send a request. Headers are named like `x_amz_acl`; `None` leaves one out."""
        given = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        sent = {name: value for name, value in given.items() if value is not None}
        return self._client.open(path, method=method, data=data, base_url=base_url, headers=sent)


@pytest.fixture
def browser() -> Browser:
    return Browser()


def code(answer: TestResponse) -> str:
    return ET.fromstring(answer.data).findtext("Code", "") if answer.status_code >= 400 else ""


def listed(answer: TestResponse) -> list[str]:
    assert answer.status_code == 200, answer.data
    return [row.text or "" for row in ET.fromstring(answer.data).iter(f"{NAMESPACE}Key")]


def test_names_that_mean_something_in_a_query_are_listed_as_they_are(browser: Browser) -> None:
    for name in ("a+b", "a&c", "a=d", "é"):
        quoted = quote(name, safe="")
        assert browser.ask("PUT", f"/{quoted}/x", b"x", if_none_match="*").status_code == 200
        assert listed(browser.ask("GET", f"/?list-type=2&prefix={quoted}/")) == [f"{name}/x"]
        browser.ask("DELETE", f"/{quoted}/x")


def test_what_is_allowed_is_done(browser: Browser) -> None:
    assert browser.ask("PUT", "/f/a", b"x", if_none_match="*").status_code == 200
    assert browser.ask("PUT", "/f/a", b"y", if_none_match="*").status_code == 412
    assert browser.ask("GET", "/f/a").data == b"x"
    assert listed(browser.ask("GET", "/?list-type=2&prefix=f/&delimiter=/")) == ["f/a"]
    assert browser.ask("DELETE", "/f/a").status_code == 204
    assert listed(browser.ask("GET", "/?list-type=2&prefix=f/")) == []


@pytest.mark.parametrize(
    "change",
    [
        {"x_amz_s3session_token": None},
        {"x_amz_s3session_token": "made-up"},
        {"authorization": None},
        {"authorization": Browser.signed_by("loopback")},
        {"base_url": HOST.replace(BUCKET, OTHER_BUCKET)},
    ],
    ids=["no token", "made-up token", "unsigned", "signed by somebody else", "another bucket's"],
)
@pytest.mark.parametrize(("method", "path"), [("PUT", "/a"), ("GET", "/a"), ("GET", "/?list-type=2")])
def test_every_request_needs_a_session_of_its_bucket(
    browser: Browser, method: str, path: str, change: dict[str, Any]
) -> None:
    answer = browser.ask(method, path, **change)
    assert (answer.status_code, code(answer)) == (403, "AccessDenied")


def test_a_session_ends_after_five_minutes(browser: Browser) -> None:
    browser.clock.advance(299)
    assert browser.ask("PUT", "/a").status_code == 200
    browser.clock.advance(1)
    assert code(browser.ask("PUT", "/a")) == "ExpiredToken"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 501),
        ("?list-type=1", 501),
        ("?list-type=2&start-after=f/a", 501),
        ("?list-type=2&delimiter=-", 400),
        ("?list-type=2&prefix=f", 400),
        ("?list-type=2&prefix=f/a", 400),
        ("?versions", 501),
        ("?acl", 501),
        ("?versioning", 501),
    ],
)
def test_a_listing_that_breaks_the_rules_fails(browser: Browser, query: str, status: int) -> None:
    assert browser.ask("GET", f"/{query}").status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        {"content_md5": "1B2M2Y8AsgTpgAmY7PhCfg=="},
        {"x_amz_acl": "private"},
        {"x_amz_grant_read": "id=1"},
        {"x_amz_tagging": "a=b"},
        {"x_amz_object_lock_mode": "GOVERNANCE"},
        {"x_amz_website_redirect_location": "/b"},
        {"x_amz_server_side_encryption": "aws:kms:dsse"},
        {"x_amz_server_side_encryption_customer_algorithm": "AES256"},
        {"x_amz_storage_class": "STANDARD"},
        {"x_amz_security_token": "token"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_an_upload_that_breaks_the_rules_fails(browser: Browser, headers: dict[str, str]) -> None:
    assert browser.ask("PUT", "/refused", b"", **headers).status_code == 400
    assert browser.ask("GET", "/refused").status_code == 404


@pytest.mark.parametrize(
    ("body", "checksum"),
    [("<Key>a</Key>", None), ("<Key> </Key>", "x"), ("<Key>a\x01</Key>", "x")],
    ids=["no checksum", "blank key", "control character"],
)
def test_a_deletion_of_many_that_breaks_the_rules_fails(browser: Browser, body: str, checksum: str | None) -> None:
    data = f"<Delete><Object>{body}</Object></Delete>".encode()
    assert browser.ask("POST", "/?delete", data, x_amz_checksum_sha256=checksum).status_code == 400


@pytest.mark.parametrize(
    "base_url",
    [
        f"http://127.0.0.1/{BUCKET}",
        f"https://s3express-usw2-az1.us-west-2.amazonaws.com/{BUCKET}",
        HOST.replace("s3express-usw2-az1", "s3express-usw2-az2"),
        HOST.replace("s3express-usw2-az1", "s3"),
        HOST.replace(BUCKET, "agents"),
    ],
)
def test_a_bucket_is_found_at_its_zones_address_only(browser: Browser, base_url: str) -> None:
    assert browser.ask("GET", "/?list-type=2", base_url=base_url).status_code == 400


def test_listings_have_no_order_and_pages_that_fit_together(browser: Browser) -> None:
    keys = [f"page/{number:02}" for number in range(25)]
    for key in keys:
        browser.ask("PUT", f"/{key}")
    found: list[str] = []
    token = ""
    for _ in range(3):
        answer = browser.ask("GET", f"/?list-type=2&prefix=page/&max-keys=10{token}")
        found += listed(answer)
        token = f"&continuation-token={ET.fromstring(answer.data).findtext(f'{NAMESPACE}NextContinuationToken')}"
    assert token.endswith("None")
    assert sorted(found) == keys
    assert found != keys


def test_an_etag_is_no_md5_and_the_same_everywhere(browser: Browser) -> None:
    put = browser.ask("PUT", "/etag/a", b"").headers["ETag"]
    (row,) = ET.fromstring(browser.ask("GET", "/?list-type=2&prefix=etag/").data).iter(f"{NAMESPACE}ETag")
    assert put == browser.ask("GET", "/etag/a").headers["ETag"] == row.text
    assert put.strip('"') != "d41d8cd98f00b204e9800998ecf8427e"
