"""The dashboard in a real browser: what people see, hear and can do, and what pages do by themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from everturn.service.views.values import FleetView
from fleets import FakeDesk, claim, fleet_of, hostile_fleet, watchdog
from polling import wait_until
from visitors import Visit, refuse

pytestmark = pytest.mark.slow

PAGES = ("/", "/sessions", "/search?q=coupons", "/disk", "/log")
PHONE: dict[str, Any] = {"viewport": {"width": 320, "height": 640}, "has_touch": True, "is_mobile": True}
_MARK = "() => { window.isStillHere = true; }"
_WIDTH = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def with_runs(desk: FakeDesk, *numbers: int) -> FleetView:
    return replace(desk.fleet_view, live=tuple(claim(number) for number in numbers))


def is_live(page: Page) -> None:
    expect(page.locator("#pulse")).to_have_text("live")


@pytest.mark.parametrize("size", [0, 1, 5000])
def test_every_page_shows_a_fleet_of_any_size_however_wide_the_screen_is(size: int, visit: Visit) -> None:
    visitor = visit(fleet_of(size))
    for path in PAGES:
        page = visitor.open(path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        for width in (1440, 970, 320):
            page.set_viewport_size({"width": width, "height": 640})
            assert page.evaluate(_WIDTH) == 0, (path, width)
        page.close()


def test_news_are_seen_without_a_reload(visit: Visit) -> None:
    desk = fleet_of(20, live=3)
    page = visit(desk).open()
    is_live(page)
    page.evaluate(_MARK)
    summary = page.locator("#summary")
    expect(summary).to_have_text("3 live runs, 2 stale claims, 20 sessions")
    desk.publish(fleet_view=with_runs(desk, 7, 0, 1, 2), watchdog_view=watchdog("red"))
    expect(summary).to_have_text("4 live runs, 2 stale claims, 20 sessions")
    expect(page.locator("#live-runs tbody tr")).to_have_count(4)
    expect(page.locator("#live-runs tbody tr").first).to_contain_text("#407")
    expect(page.locator("#watchdog")).to_contain_text("Something to act on")
    expect(page).to_have_title("4 live · Everturn")
    desk.publish(fleet_view=with_runs(desk))
    expect(page.locator("#live-runs")).to_contain_text("No run is at work")
    desk.publish(fleet_view=with_runs(desk, 2))
    expect(page.locator("#live-runs tbody tr")).to_have_count(1)
    desk.publish(fleet_view=with_runs(desk, 5, 2, 2, 3))
    expect(page.locator("#live-runs tbody th")).to_contain_text(["nightly-5", "#402", "#402", "#403"])
    assert page.evaluate("() => window.isStillHere")


def test_news_leave_alone_what_a_reader_is_at(visit: Visit) -> None:
    desk = fleet_of(60)
    visitor = visit(desk, viewport={"width": 900, "height": 500})
    page = visitor.open("/log")
    is_live(page)
    details = page.locator("details").nth(1)
    details.locator("summary").click()
    details.locator("summary").focus()
    page.evaluate("() => getSelection().selectAllChildren(document.querySelector('tbody tr:nth-child(9) th span'))")
    before = page.evaluate("() => [String(getSelection()), document.activeElement.closest('details').id, scrollY]")
    page.evaluate("() => { for (const each of document.querySelectorAll('tbody tr')) each.isOld = true; }")
    newest = replace(desk.entries[0], number=999, title="Branch fix/7 was deleted")
    desk.publish(entries=(newest, *desk.entries))
    expect(page.locator("tbody tr").first).to_contain_text("Branch fix/7 was deleted")
    expect(details).to_have_attribute("open", "")
    after = page.evaluate("() => [String(getSelection()), document.activeElement.closest('details').id, scrollY]")
    assert before[:2] == after[:2]
    assert before[0].startswith("Pull request")
    assert page.evaluate("() => [...document.querySelectorAll('tbody tr')].filter((each) => !each.isOld).length") == 1


def test_what_somebody_types_is_not_taken_away_by_news(visit: Visit) -> None:
    desk = fleet_of(5)
    page = visit(desk).open("/sessions")
    is_live(page)
    page.get_by_label("Words").fill("half a wor")
    desk.publish(all_sessions=desk.all_sessions[:2])
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page.get_by_label("Words")).to_have_value("half a wor")
    expect(page.get_by_label("Words")).to_be_focused()


def test_only_the_summary_is_read_aloud_and_only_if_it_changes(visit: Visit) -> None:
    desk = fleet_of(20, live=3)
    page = visit(desk).open()
    is_live(page)
    page.evaluate(
        """() => {
          window.spoken = [];
          for (const each of document.querySelectorAll("[aria-live]"))
            new MutationObserver(() => spoken.push(each.textContent))
              .observe(each, { subtree: true, childList: true, characterData: true });
        }"""
    )
    dearer = replace(desk.fleet_view, cost_today_usd=99.0)
    desk.publish(fleet_view=dearer)
    expect(page.locator("#cost")).to_contain_text("$99.00")
    assert page.evaluate("() => spoken") == []
    desk.publish(fleet_view=replace(dearer, live=dearer.live[:1]))
    expect(page.locator("#cost")).to_contain_text("$99.00")
    wait_until(
        lambda: page.evaluate("() => spoken") == ["1 live run, 2 stale claims, 20 sessions"], "the summary is read"
    )


def test_ages_grow_without_asking_the_service(visit: Visit) -> None:
    desk = fleet_of(20, live=2)
    visitor = visit(desk)
    page = visitor.context.new_page()
    page.clock.install(time=0)  # this clock and the service's are decades apart
    page.goto(visitor.address)
    row = page.locator("#live-runs tbody tr").nth(1)
    expect(row).to_contain_text("7 s ago")
    asked = desk.asked
    page.clock.run_for(10_000)
    expect(row).to_contain_text("17 s ago")
    expect(row).to_contain_text("good for 12 s")
    expect(row.locator("time").last).to_have_attribute("title", "2027-01-15 07:59:53 UTC")
    assert desk.asked == asked


def test_a_page_says_that_the_service_is_away_and_goes_on_when_it_is_back(visit: Visit) -> None:
    desk = fleet_of(20, live=2)
    visitor = visit(desk)
    page = visitor.context.new_page()
    page.clock.install()
    page.goto(visitor.address)
    is_live(page)
    page.evaluate(_MARK)
    for pattern in ("**/live**", visitor.address + "/"):
        page.route(pattern, refuse)
    desk.publish(fleet_view=with_runs(desk, 0))
    expect(page.locator("#pulse")).to_have_text("not live, trying again")
    expect(page.locator("#live-runs tbody tr")).to_have_count(2)
    for _ in range(5):
        with page.expect_event("requestfailed"):
            page.clock.run_for(61_000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(7_000)
    assert asked == []
    page.unroute_all()
    page.clock.run_for(61_000)
    is_live(page)
    expect(page.locator("#live-runs tbody tr")).to_have_count(1)
    assert page.evaluate("() => window.isStillHere")


def test_a_stream_that_has_fallen_silent_is_opened_anew(visit: Visit) -> None:
    desk = fleet_of(20, live=2)
    visitor = visit(desk)
    page = visitor.context.new_page()
    page.clock.install()
    page.goto(visitor.address)
    is_live(page)
    with page.expect_request("**/live**"):
        page.clock.run_for(55_000)
    is_live(page)


def test_a_hidden_page_asks_for_nothing_until_it_is_seen_again(visit: Visit) -> None:
    desk = fleet_of(20, live=2)
    page = visit(desk).open()
    is_live(page)
    hide = """(state) => {
      Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, "hidden")
    wait_until(lambda: desk.waiting == 0, "the stream is closed")
    asked = desk.asked
    desk.publish(fleet_view=with_runs(desk, 0))
    assert desk.asked == asked
    page.evaluate(hide, "visible")
    expect(page.locator("#live-runs tbody tr")).to_have_count(1)
    wait_until(lambda: desk.waiting == 1, "the stream is open again")


def test_a_page_of_another_release_asks_for_a_reload(visit: Visit) -> None:
    desk = fleet_of(20, live=2)
    visitor = visit(desk)
    page = visitor.open()
    is_live(page)
    newer = page.request.get(visitor.address).text().replace("everturn.js?v=", "everturn.js?v=f")
    page.route(visitor.address + "/", lambda route: route.fulfill(body=newer, content_type="text/html"))
    desk.publish()
    expect(page.locator("#pulse")).to_have_text("there is a newer dashboard: reload")


def test_without_a_script_everything_works_but_that_it_is_live(visit: Visit) -> None:
    desk = fleet_of(300)
    page = visit(desk, java_script_enabled=False).open("/sessions")
    expect(page.locator("#pulse")).to_be_hidden()
    page.get_by_label("State").select_option("idle")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("#summary")).to_have_text("164 sessions of this kind")
    page.get_by_role("link", name="Older").click()
    expect(page.locator("nav.paging")).to_contain_text("51 to 100 of 164")
    page.get_by_role("link", name="Log").click()
    page.locator("summary").first.click()
    expect(page.locator("details").first).to_have_attribute("open", "")
    page.get_by_role("link", name="Search").click()
    page.get_by_label("Words").fill("coupons")
    page.keyboard.press("Enter")
    expect(page.locator("mark").first).to_have_text("coupons")


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
def test_texts_of_others_stay_texts_and_break_no_page(options: dict[str, Any], visit: Visit) -> None:
    desk = hostile_fleet()
    visitor = visit(desk, **options)
    for path in PAGES:
        page = visitor.open(path)
        assert "gotcha" not in page.title()
        assert "gotcha" in page.locator("main").inner_text()
        assert page.evaluate(_WIDTH) == 0, path
        if path != "/search?q=coupons":
            is_live(page)
            page.evaluate("() => { document.querySelector('main [data-live]').replaceChildren(); }")
            desk.publish()
            expect(page.locator("main [data-live]").first).not_to_be_empty()
        assert "gotcha" not in page.title()
        page.close()


def test_everything_can_be_done_with_the_keyboard(visit: Visit) -> None:
    page = visit(fleet_of(300)).open()
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Disk").last).to_be_focused()
    page.goto(page.url.partition("#")[0])
    for _ in range(4):
        page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Sessions")).to_be_focused()
    assert page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Sessions")).to_be_visible()
    expect(page.get_by_role("link", name="Sessions")).to_have_attribute("aria-current", "page")
    page.get_by_label("Words").focus()
    page.keyboard.type("payments")
    page.keyboard.press("Tab")
    page.keyboard.type("fixer")
    page.keyboard.press("Enter")
    expect(page.locator("#summary")).to_have_text("24 sessions of this kind")
    page.goto(page.url.partition("/sessions")[0] + "/log")
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("details").first).to_have_attribute("open", "")


@pytest.mark.parametrize(("scheme", "options"), [("light", {}), ("dark", PHONE), ("dark", {})])
def test_nothing_keeps_people_out(scheme: str, options: dict[str, Any], visit: Visit, axe: str) -> None:
    desk = fleet_of(40)
    desk.watchdog_view = watchdog("red")
    desk.fleet_view = replace(desk.fleet_view, problem="The registry does not answer.")
    visitor = visit(desk, color_scheme=scheme, bypass_csp=True, reduced_motion="reduce", **options)
    for path in (*PAGES, "/sessions?q=nothing", "/search"):
        page = visitor.open(path)
        page.evaluate(axe)
        found = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
        told = [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in found["violations"]]
        assert told == [], (path, told)
        page.close()


def test_nothing_keeps_people_out_of_pages_that_say_what_is_wrong(visit: Visit, axe: str) -> None:
    visitor = visit(fleet_of(1), bypass_csp=True)
    page = visitor.open("/sessions?state=nonsense")
    page.evaluate(axe)
    assert page.evaluate("() => axe.run().then((found) => found.violations.map((each) => each.id))") == []
    assert visitor.complaints.pop().endswith("400 (Bad Request)")


def test_a_printed_page_has_no_navigation(visit: Visit) -> None:
    page = visit(fleet_of(5)).open()
    page.emulate_media(media="print")
    expect(page.locator("header.top")).to_be_hidden()
    expect(page.locator("#live-runs table")).to_be_visible()
