"""What the dashboard's pages say, and that nobody's text gets them to say or do anything else."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.testclient import TestClient

from everturn.errors import Invalid, Unavailable
from everturn.service.dashboard import words
from everturn.service.dashboard.assets import assets
from everturn.service.web.guards import PAGE_POLICY
from fleets import HOUR_S, NOW, FakeDesk, app_of, fleet_of, hostile_fleet, watchdog

PAGES = ("/", "/sessions", "/search?q=coupons", "/disk", "/log")
EACH_PAGE = pytest.mark.parametrize("page", PAGES)
VOID = {"meta", "link", "input", "br", "img", "hr"}


class Outline(HTMLParser):
    """What a browser makes of a page, as far as the tests want to know."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), tag
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def client(desk: FakeDesk, folder: Path) -> TestClient:
    return TestClient(app_of(desk, folder), base_url="http://127.0.0.1", raise_server_exceptions=False)


def look(desk: FakeDesk, folder: Path, page: str, status: int = 200) -> Outline:
    response = client(desk, folder).get(page)
    assert response.status_code == status, response.text
    return Outline(response.text)


@pytest.mark.slow
@EACH_PAGE
@pytest.mark.parametrize("size", [0, 1, 5000])
def test_a_page_shows_a_fleet_of_any_size(page: str, size: int, tmp_path: Path) -> None:
    desk = fleet_of(size)
    response = client(desk, tmp_path).get(page)
    assert response.status_code == 200
    assert len(response.content) < 300_000
    assert desk.asked <= 2
    found = Outline(response.text)
    assert len(found.all("h1")) == 1
    assert len(found.all("main")) == 1


def test_the_fleet_page_tells_who_works_on_what(tmp_path: Path) -> None:
    desk = fleet_of(20, live=3)
    text = look(desk, tmp_path, "/").text
    assert "3 live runs, 2 stale claims, 20 sessions" in text
    assert "platform/payments-gateway #401 reviewer resumed" in text
    assert "worker-1.eu-west-1.compute claim 2, good for 22 s" in text
    assert "2 in Edit 7 min ago 7 s ago $0.31 58.5k tokens" in text
    assert "$9.51 by all runs that began today" in text


@pytest.mark.slow
@pytest.mark.parametrize(("light", "says"), [("green", "All is well"), ("red", "Something to act on")])
def test_the_watchdog_says_how_the_fleet_is_and_why(light: str, says: str, tmp_path: Path) -> None:
    desk = fleet_of(1)
    desk.watchdog_view = watchdog(light)  # type: ignore[arg-type]
    text = look(desk, tmp_path, "/").text
    assert says in text
    assert ("act Store It did not answer for 3 min. docs/alarms.md#everturnmirrorfailures" in text) == (
        light == "red"
    )


def test_a_fleet_that_cannot_be_looked_at_is_shown_as_it_was(tmp_path: Path) -> None:
    desk = fleet_of(3)
    desk.fleet_view = replace(desk.fleet_view, at=NOW - 3 * HOUR_S, problem="The registry does not answer.")
    assert "This is how the fleet was 3 h ago . The registry does not answer." in look(desk, tmp_path, "/").text


@pytest.mark.slow
def test_a_long_list_is_cut_and_says_so(tmp_path: Path) -> None:
    text = look(fleet_of(5000, live=400), tmp_path, "/").text
    assert "The 100 that began last are shown; all 400 live sessions" in text
    assert "The 100 largest are shown" in look(fleet_of(5000), tmp_path, "/disk").text


@pytest.mark.slow
def test_sessions_are_narrowed_down_and_paged_through(tmp_path: Path) -> None:
    http = client(fleet_of(5000), tmp_path)
    page, seen = "/sessions?agent=fixer&state=idle", 0
    while page:
        found = Outline(http.get(page).text)
        seen += len([each for each in found.all("th") if each.get("scope") == "row"])
        asked = parse_qs(urlsplit(page).query)
        assert (asked["agent"], asked["state"]) == (["fixer"], ["idle"])
        page = next((link["href"] for link in found.all("a") if link.get("rel") == "next"), "")
    assert seen == 824
    assert {"name": "agent", "value": "fixer"}.items() <= found.all("input")[1].items()
    assert [each for each in found.all("option") if "selected" in each]


def test_a_page_behind_the_end_of_a_list_leads_back(tmp_path: Path) -> None:
    assert (
        "The list ends before this page. To its beginning" in look(fleet_of(5), tmp_path, "/sessions?offset=50").text
    )


@pytest.mark.parametrize(
    "page",
    [
        "/sessions?offset=-1",
        "/sessions?offset=x",
        "/sessions?offset=99999999999999999999",
        "/sessions?offset=%D9%A3",
        "/sessions?state=<b>",
        "/log?kind=<b>",
    ],
)
def test_a_request_that_makes_no_sense_is_answered_with_a_page_that_says_so(page: str, tmp_path: Path) -> None:
    found = look(fleet_of(5), tmp_path, page, status=400)
    assert "400" in found.texts
    assert not found.all("b")
    assert [link for link in found.all("a") if link["href"] == "/"]


@EACH_PAGE
def test_a_store_that_is_away_is_a_page_too(page: str, tmp_path: Path) -> None:
    desk = FakeDesk(error=Unavailable("the mirror is being built", hint="look again in a minute"))
    assert "The mirror is being built" in look(desk, tmp_path, page, status=503).text


@pytest.mark.slow
def test_a_search_shows_what_was_found_and_leads_there(tmp_path: Path) -> None:
    desk = fleet_of(20)
    found = look(desk, tmp_path, "/search?q=coupons&agent=fixer&repo=shop&kind=answer")
    ((query, filters),) = desk.searched
    assert (query, filters and (filters.agent, filters.repo, filters.kind)) == (
        "coupons",
        ("fixer", "shop", "answer"),
    )
    assert "20 texts" in found.text
    assert "the cart forgets its coupons when" in found.text
    assert found.all("mark")
    links = [link["href"] for link in found.all("a") if "?at=" in link["href"]]
    assert links[0] == f"/sessions/{desk.found.hits[1].session_id}?at={1:020x}-1#{1:020x}-1"


def test_a_search_that_cannot_be_done_keeps_what_was_typed(tmp_path: Path) -> None:
    desk = FakeDesk(error=Invalid("the search has no word in it", hint="give a word"))
    found = look(desk, tmp_path, "/search?q=%22%3C", status=400)
    assert "The search has no word in it. Give a word." in found.text
    assert found.all("input")[0]["value"] == '"<'
    assert found.all("input")[0]["aria-invalid"] == "true"


def test_a_search_for_nothing_asks_nobody(tmp_path: Path) -> None:
    desk = FakeDesk(error=Invalid("never", hint="asked"))
    assert "Search" in look(desk, tmp_path, "/search?q=%20").text
    assert desk.asked == 0


def test_the_disk_page_tells_what_takes_room_and_what_a_sweep_would_free(tmp_path: Path) -> None:
    text = look(fleet_of(3), tmp_path, "/disk").text
    assert "of the 60.0 GB allowed" in text
    assert "2.3 GB would be freed, by removing 14 things; tried 61 s ago" in text
    assert "no agent" in text
    assert "shop-2-" in text


def test_the_log_is_paged_through_kind_by_kind(tmp_path: Path) -> None:
    http = client(fleet_of(130), tmp_path)
    for kind, title in (("sweep", "Daily sweep"), ("admin", "Reset of everything"), ("webhook", "Pull request")):
        text = Outline(http.get(f"/log?kind={kind}").text).text
        for other in ("Daily sweep", "Reset of everything", "Pull request"):
            assert (other in text) == (other == title)
    page, seen = "/log", 0
    while page:
        found = Outline(http.get(page).text)
        seen += len([each for each in found.all("th") if each.get("scope") == "row"])
        page = next((link["href"] for link in found.all("a") if link.get("rel") == "next"), "")
    assert seen == 130
    assert not [each for each in found.all("div") if each.get("id") == "entries" and "data-live" in each]


@EACH_PAGE
def test_texts_of_others_stay_texts(page: str, tmp_path: Path) -> None:
    response = client(hostile_fleet(), tmp_path).get(page)
    assert response.status_code == 200
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202d\u202e\ud800-\udfff]", response.text)
    found = Outline(response.text)
    assert [script["src"] for script in found.all("script")] == [assets()["script"].address]
    assert not found.all("img")
    for tag, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        assert not attributes.get("href", "").lower().startswith("javascript"), tag
    assert "gotcha" in found.text


@EACH_PAGE
def test_a_page_can_be_read_by_programs_that_read_aloud(page: str, tmp_path: Path) -> None:
    found = look(fleet_of(60), tmp_path, page)
    (html,) = found.all("html")
    assert html["lang"] == "en"
    ids = Counter(attributes["id"] for _, attributes in found.elements if "id" in attributes)
    assert set(ids.values()) == {1}
    labels = {label["for"] for label in found.all("label")}
    assert {each["id"] for tag in ("input", "select") for each in found.all(tag)} == labels
    for _, attributes in found.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert set(attributes.get(name, "main").split()) <= set(ids)
    assert all(each.get("scope") in ("col", "row") for each in found.all("th"))
    assert len(found.all("caption")) == len([each for each in found.all("table") if each.get("class") == "sheet"])
    here = [each["href"] for each in found.all("a") if each.get("aria-current") == "page"]
    assert page.partition("?")[0] in here
    assert found.all("a")[0]["href"] == "#main"
    for time in found.all("time"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time["datetime"])
    spoken = [attributes for _, attributes in found.elements if "aria-live" in attributes]
    assert [each["id"] for each in spoken] in ([], ["summary"])


@EACH_PAGE
def test_a_page_forbids_what_it_does_not_need(page: str, tmp_path: Path) -> None:
    headers = client(fleet_of(1), tmp_path).get(page).headers
    assert headers["content-security-policy"] == PAGE_POLICY
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "unsafe" not in PAGE_POLICY


@pytest.mark.slow
def test_files_that_pages_refer_to_are_kept_until_they_change(tmp_path: Path) -> None:
    http = client(fleet_of(1), tmp_path)
    for asset in assets().values():
        fetched = http.get(asset.address)
        assert (fetched.status_code, fetched.content) == (200, asset.data)
        assert fetched.headers["content-type"].startswith(asset.media_type)
        assert "immutable" in fetched.headers["cache-control"]
        assert http.get(f"/static/{asset.name}?v=old").headers["cache-control"] == "no-cache"
        again = http.get(asset.address, headers={"If-None-Match": fetched.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for name in ("nothing.js", "..%2fpages.py", "%2e%2e/pages.py"):
        assert http.get(f"/static/{name}").status_code == 404


def test_the_script_makes_no_html_out_of_text() -> None:
    script = assets()["script"].data.decode()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "http"):
        assert word not in script, word
    assert len(script) < 9000


def test_the_style_sheet_asks_for_nothing_from_elsewhere() -> None:
    style = assets()["style"].data.decode()
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(-5, "0 s"), (0.9, "0 s"), (119.9, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (1e6, "11 d"),
     (float("nan"), "\u2013"), (float("inf"), "\u2013")],
)  # fmt: skip
def test_ages_are_told_in_their_largest_unit(seconds: float, says: str) -> None:
    assert words.age(seconds) == says


@pytest.mark.parametrize(
    ("size_bytes", "says"),
    [(None, "\u2013"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_949, "99.9 kB"), (99_951, "100 kB"),
     (999_499, "999 kB"), (999_501, "1.0 MB"), (10**9, "1.0 GB"), (2 * 10**18, "2,000 PB"), (-5_000_000, "-5.0 MB")],
)  # fmt: skip
def test_sizes_are_told_in_three_digits(size_bytes: int | None, says: str) -> None:
    assert words.size(size_bytes) == says


@pytest.mark.parametrize(
    ("cost_usd", "says"),
    [
        (None, "\u2013"),
        (0.0, "$0.00"),
        (0.004, "<$0.01"),
        (12.345, "$12.35"),
        (1e6, "$1,000,000.00"),
        (float("nan"), "\u2013"),
    ],
)
def test_costs_are_told_to_the_cent(cost_usd: float | None, says: str) -> None:
    assert words.cost(cost_usd) == says
    assert words.cost(1.0, partial=True) == "$1.00+"


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("fixer@https://github.com/acme/shop#7", "acme/shop #7"),
        ("fixer@git@gitlab.example:web/app#7", "web/app #7"),
        ("fixer@/srv/git/shop#fix it", "git/shop #fix it"),
        ("task:nightly", "nightly"),
        ("odd", "odd"),
        ("", ""),
        ("@#", "#"),
    ],
)
def test_work_items_are_told_in_short(key: str, says: str) -> None:
    assert words.work_name(key).strip() == says


@pytest.mark.parametrize("at", [float("nan"), float("inf"), -float("inf"), 1e300, -1e300])
def test_times_that_cannot_be_are_told_as_the_nearest_that_can(at: float) -> None:
    assert words.exact_time(at).endswith("UTC")
    assert words.machine_time(at).endswith("Z")
    assert words.ago(at, NOW)
