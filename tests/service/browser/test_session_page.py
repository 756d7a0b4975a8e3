"""The page of a session in a real browser: what the real agent command did, and what nobody should write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from everturn.journal.events import Ended, Event, Prompt, ToolResult, ToolUse
from everturn.model import Claim
from everturn.service.parts import Parts
from everturn.service.views.desk import Desk
from everturn.service.web.app import make_app
from fleets import HOSTILE, serving
from journals import said
from mirrored import answered, called, resulted
from service.ground import Fleet, begun, issue, turn
from service.mending import Mending
from visitors import Visitor, visiting

pytestmark = [pytest.mark.slow]

PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
SLOW_MS = 30_000
_WIDTH = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
_AXE = "() => axe.run(document, { resultTypes: ['violations'] })"
_UNFOLD = "() => { for (const each of document.querySelectorAll('details')) each.open = true; }"
_RENDER = """() => {
  for (const each of document.querySelectorAll("article")) each.style.contentVisibility = "visible";
}"""
_SMALLEST = """() => Math.min(
  ...[...document.querySelectorAll(".plot text")].map((each) => parseFloat(getComputedStyle(each).fontSize)))"""


@dataclass
class Reader:
    """Somebody who reads sessions of a fleet."""

    parts: Parts
    desk: Desk
    browser: Browser
    stack: ExitStack
    address: str

    def visitor(self, **options: Any) -> Visitor:
        return self.stack.enter_context(visiting(self.browser, self.address, **options))

    def open(self, query: str = "", **options: Any) -> Page:
        (session,) = self.desk.sessions().sessions
        return self.visitor(**options).open(f"/sessions/{session.session_id}{query}")


def reading(parts: Parts, browser: Browser, stack: ExitStack) -> Reader:
    """Serve a desk until the stack is left."""
    desk = Desk(parts)
    desk.start()
    stack.callback(desk.stop)
    address = stack.enter_context(serving(make_app(parts, desk)))
    return Reader(parts, desk, browser, stack, address)


@pytest.fixture(scope="module")
def mended(tmp_path_factory: pytest.TempPathFactory) -> Mending:
    """Return what is left of a session of two runs, the first of which was killed."""
    mending = Mending(tmp_path_factory.mktemp("mended"))
    with mending.serving():
        mending.mend()
    assert mending.model.script_errors == []
    return mending


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
def reader(mended: Mending, chromium: Browser, stack: ExitStack) -> Reader:
    parts = Parts.open(mended.settings)
    stack.callback(parts.close)
    return reading(parts, chromium, stack)


def call(page: Page, text: str) -> Locator:
    return page.locator("details.call").filter(has=page.locator("summary", has_text=text)).first


def top_of(page: Page, selector: str) -> float:
    return float(page.locator(selector).evaluate("(each) => each.getBoundingClientRect().top"))


# --- What the real agent did ------------------------------------------------------------------------------------


@pytest.mark.cli
def test_a_kill_and_a_takeover_are_read_run_by_run(reader: Reader) -> None:
    page = reader.open()
    runs = page.locator("section.run")
    expect(runs).to_have_count(2)
    expect(runs.nth(0)).to_contain_text("The tests agree")
    expect(runs.nth(0).locator(".closing")).to_contain_text("killed, or cut off")
    expect(runs.nth(1).get_by_role("heading", level=2)).to_have_text("Run 2 on worker-b")
    expect(runs.nth(1)).to_contain_text("took over from run 1 on worker-a")
    expect(runs.nth(1)).to_contain_text("Issue #7 is done.")
    expect(runs.nth(1).locator(".closing")).to_have_text("completed")
    expect(page.locator("#timeline .sign.died").first).to_be_visible()
    expect(page.locator("#timeline .sign.took_over").first).to_be_visible()
    expect(page.locator("#session-about")).to_contain_text("claude-")


@pytest.mark.cli
def test_tool_calls_are_folded_and_show_what_was_done_when_they_are_unfolded(reader: Reader) -> None:
    page = reader.open()
    expect(page.get_by_text("grep -rn").first).to_be_hidden()
    failed = call(page, "printf")
    expect(failed.locator("summary em")).to_have_text("failed")
    failed.locator("summary").click()
    expect(failed).to_contain_text("FAILED tests/test_shapes.py::test_area - assert 18.8 == 28.3")
    assert "\x1b" not in failed.inner_text()
    edit = page.locator("details.call").filter(has=page.locator("summary b", has_text="Edit"))
    edit.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(edit.locator("del")).to_have_text(["-    return 2 * PI * radius\n"])
    expect(edit.locator("ins").last).to_have_text("+    return PI * radius**2\n")
    agent = call(page, "Count who calls")
    agent.locator("summary").first.click()
    inner = agent.locator("section.agent details.call")
    inner.locator("summary").click()
    expect(inner).to_contain_text("shapes.py:6:def area(radius: float)")
    picture = call(page, "circle.png")
    picture.locator("summary").click()
    expect(picture.locator("img")).to_be_visible()
    wide = "(each) => each.decode().then(() => each.naturalWidth)"
    assert picture.locator("img").evaluate(wide) == 240
    page.get_by_text("thought", exact=True).first.click()
    expect(page.get_by_text("The formula may be that of the circumference.")).to_be_visible()


@pytest.mark.cli
def test_texts_are_shown_as_they_are_meant_and_do_nothing(reader: Reader) -> None:
    page = reader.open()
    page.evaluate(_UNFOLD)
    assert "owned" not in page.title()
    expect(page.get_by_text("<script>document.title = 'owned'</script>").first).to_be_attached()
    expect(page.locator(".said table td").first).to_have_text("1")
    expect(page.locator(".said a[href]")).to_have_attribute("href", "https://en.wikipedia.org/wiki/Area_of_a_circle")
    hebrew = page.locator(".said blockquote p")
    assert hebrew.evaluate("(each) => getComputedStyle(each).direction") == "rtl"
    code = page.locator(".said pre").first
    assert code.evaluate("(each) => getComputedStyle(each).overflowX") == "auto"


@pytest.mark.cli
def test_a_turn_on_the_timeline_and_in_the_list_leads_to_where_it_stands(reader: Reader) -> None:
    page = reader.open(viewport={"width": 1300, "height": 700})
    second = page.locator("article").nth(1)
    page.locator("#timeline a").nth(1).click()
    expect(second).to_be_in_viewport()
    assert page.url.endswith("#" + str(second.get_attribute("id")))
    page.get_by_role("navigation", name="Turns on this page").get_by_role("link").nth(1).click()
    first = page.locator("article").nth(0)
    expect(first).to_be_in_viewport()
    first.get_by_role("link", name="next turn").focus()
    page.keyboard.press("Enter")
    expect(second).to_be_in_viewport()


@pytest.mark.cli
@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
def test_nothing_is_wider_than_the_screen(options: dict[str, Any], reader: Reader) -> None:
    page = reader.open(**options)
    assert page.evaluate(_WIDTH) == 0
    page.evaluate(_UNFOLD)
    assert page.evaluate(_WIDTH) == 0
    assert page.evaluate(_SMALLEST) >= 11


@pytest.mark.cli
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
def test_nothing_keeps_people_out(scheme: str, options: dict[str, Any], reader: Reader, axe: str) -> None:
    page = reader.open(color_scheme=scheme, bypass_csp=True, reduced_motion="reduce", **options)
    page.evaluate(_UNFOLD)
    page.evaluate(_RENDER)
    check(page, axe)


def check(page: Page, axe: str) -> None:
    page.evaluate(axe)
    found = page.evaluate(_AXE)
    told = [(each["id"], [node["html"][:200] for node in each["nodes"][:4]]) for each in found["violations"]]
    assert told == []


@pytest.mark.cli
def test_a_run_is_watched_as_it_is_killed_and_taken_over_without_a_reload(
    tmp_path: Path, chromium: Browser, stack: ExitStack
) -> None:
    mending = Mending(tmp_path)
    settings = mending.settings.model_copy(update={"dashboard_refresh_s": 0.2})
    parts = Parts.open(settings)
    stack.callback(parts.close)
    stack.enter_context(mending.serving())
    with mending.machine("worker-a") as machine:
        mending.until_mid_sentence(machine)
        page = reading(parts, chromium, stack).open()
        page.set_default_timeout(SLOW_MS)
        page.evaluate("() => { window.isStillHere = true; }")
        expect(page.locator(".working")).to_be_visible()
        call(page, "printf").locator("summary").click()
        machine.kill()
    with mending.machine("worker-b") as machine:
        second = page.locator("section.run").nth(1)
        expect(second).to_contain_text("took over from run 1", timeout=SLOW_MS)
        expect(second).to_contain_text("Issue #7 is done.", timeout=SLOW_MS)
        machine.wait(60)
    expect(second.locator(".closing")).to_have_text("completed", timeout=SLOW_MS)
    expect(page.locator("section.run").nth(0).locator(".closing")).to_contain_text("killed, or cut off")
    expect(page.locator("#session-head")).to_contain_text("can be resumed")
    expect(page.locator("#timeline .sign.took_over").first).to_be_visible()
    expect(call(page, "printf")).to_have_attribute("open", "")
    assert page.evaluate("() => window.isStillHere")


# --- While somebody reads ---------------------------------------------------------------------------------------


def at_work(fleet: Fleet, turns: int) -> Claim:
    claim = fleet.claim(issue(7), "a" * 20, ttl_s=600)
    told = [event for number in range(turns) for event in turn(f"tap {number}")]
    fleet.keep(claim, [*begun(claim), *told])
    return claim


def test_news_leave_the_reader_where_they_are(fleet: Fleet, chromium: Browser, stack: ExitStack) -> None:
    claim = fleet.claim(issue(7), "a" * 20, ttl_s=600)
    journal = fleet.journals.open(claim.run_id, claim.work.key)
    stack.callback(journal.close, True)
    for event in [*begun(claim), *(event for number in range(30) for event in turn(f"tap {number}"))]:
        journal.write(event)
    page = reading(fleet.parts, chromium, stack).open(viewport={"width": 1000, "height": 600})
    expect(page.locator("#pulse")).to_have_text("live")
    article = page.locator("article").nth(12)
    article.locator("summary").first.click()
    article.scroll_into_view_if_needed()
    anchor = f"[id='{article.get_attribute('id')}']"
    before = top_of(page, anchor)
    for event in [
        Prompt("And the roof?", resumed=True),
        *called("Read", {"file_path": "roof"}, "old tiles", call_id="x"),
    ]:
        journal.write(event)
    expect(page.locator("article")).to_have_count(31)
    expect(page.locator("article").last).to_contain_text("And the roof?")
    assert abs(top_of(page, anchor) - before) <= 2
    expect(article.locator("details").first).to_have_attribute("open", "")
    page.get_by_role("link", name="Jump to the latest").click()
    expect(page.locator(".working")).to_be_in_viewport()


def test_pages_of_a_long_session_lead_to_each_other(fleet: Fleet, chromium: Browser, stack: ExitStack) -> None:
    claim = fleet.claim(issue(7), "a" * 20)
    told = [event for number in range(130) for event in turn(f"tap {number}")]
    fleet.keep(claim, [*begun(claim), *told, Ended("completed")])
    fleet.parts.registry.release(claim)
    page = reading(fleet.parts, chromium, stack).open()
    expect(page.locator("article")).to_have_count(40)
    page.get_by_role("link", name="Later turns").first.click()
    expect(page.locator("article h3").first).to_contain_text("Turn 41")
    page.get_by_role("link", name="Jump to the latest").click()
    expect(page.locator("article h3").last).to_contain_text("Turn 130")
    expect(page.locator(".closing")).to_be_in_viewport()
    page.get_by_role("link", name="Earlier turns").first.click()
    expect(page.locator("article h3").first).to_contain_text("Turn 51")


# --- What nobody should write -----------------------------------------------------------------------------------


def hostile_events() -> list[Event]:
    told: list[Event] = [Prompt("\n\n".join(HOSTILE), resumed=False)]
    for number, words in enumerate(HOSTILE):
        patch = {"structuredPatch": [{"lines": [words, f"+{words}", f"-{words}"]}]}
        told += [
            *said(words or "-", f"m{number}"),
            ToolUse(f"c{number}", words, {"command": words, words: [words]}, f"m{number}", "m"),
            ToolResult(f"c{number}", words, is_error=bool(number % 2), details=patch),
        ]
    return told


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
def test_texts_of_others_stay_texts_and_break_no_page(
    options: dict[str, Any], fleet: Fleet, chromium: Browser, stack: ExitStack, axe: str
) -> None:
    claim = fleet.claim(issue(7), "a" * 20, worker=HOSTILE[0])
    fleet.keep(claim, [*begun(claim, worker=HOSTILE[0]), *hostile_events(), resulted(), Ended("failed", HOSTILE[1])])
    fleet.parts.registry.release(claim)
    page = reading(fleet.parts, chromium, stack).open(bypass_csp=True, **options)
    page.evaluate(_UNFOLD)
    page.evaluate(_RENDER)
    assert page.title() == "acme/web #7 · Everturn"
    assert page.evaluate(_WIDTH) == 0
    check(page, axe)


def test_megabytes_of_answers_are_a_page_that_opens_at_once(
    fleet: Fleet, chromium: Browser, stack: ExitStack
) -> None:
    claim = fleet.claim(issue(7), "a" * 20)
    long = "\x1b[31mx\x1b[0m" + "The quick brown fox. " * 100_000
    calls = [
        event for number in range(30) for event in called("Bash", {"command": "cat"}, long, call_id=f"c{number}")
    ]
    fleet.keep(
        claim, [*begun(claim), Prompt(long, resumed=False), *calls, answered(long), resulted(), Ended("completed")]
    )
    fleet.parts.registry.release(claim)
    page = reading(fleet.parts, chromium, stack).open()
    expect(page.locator("article .note").last).to_contain_text("characters of long texts are left out here")
    assert page.evaluate("() => document.documentElement.outerHTML.length") < 1_000_000
    assert page.evaluate(_WIDTH) == 0


def test_pages_of_what_is_missing_keep_nobody_out(
    fleet: Fleet, chromium: Browser, stack: ExitStack, axe: str
) -> None:
    empty = fleet.claim(issue(7), "a" * 20)
    fleet.parts.registry.release(empty)
    read = reading(fleet.parts, chromium, stack)
    page = read.open(bypass_csp=True)
    expect(page.get_by_text("There is nothing to read")).to_be_visible()
    check(page, axe)
    visitor = read.visitor(bypass_csp=True)
    lost = visitor.open("/sessions/lost")
    expect(lost.get_by_role("heading", level=1)).to_have_text("There is no session lost")
    check(lost, axe)
    assert visitor.complaints.pop().endswith("404 (Not Found)")


def test_without_a_script_everything_can_be_read(fleet: Fleet, chromium: Browser, stack: ExitStack) -> None:
    at_work(fleet, 3)
    page = reading(fleet.parts, chromium, stack).open(java_script_enabled=False)
    details = page.locator("details.call").first
    details.locator("summary").click()
    expect(details).to_contain_text("tap 0")
