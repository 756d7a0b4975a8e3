"""The page of a session, as its HTML says it: from journals that real code wrote into a real store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urlsplit

import anyio
import pytest
from starlette.testclient import TestClient

from everturn.journal.events import Assistant, Ended, Event, Prompt, Shutdown, Thinking, ToolResult, ToolUse
from everturn.model import Claim
from everturn.runtime import open_transcripts
from everturn.service.dashboard.sessions import lanes
from everturn.service.dashboard.words import anchor_of
from everturn.service.web.app import make_app
from mirrored import answered, called, resulted
from recorded import tap
from service.ground import Fleet, begun, issue, turn

HOSTILE = (
    "</title></pre></details></main><script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "[click](javascript:alert(1)) ![spy](https://evil.example/p.png)",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b31m \x08 \u202egnp.exe",
    "{{ 7 * 7 }} ' onmouseover='alert(1)",
    "\u05d4\u05de\u05e2\u05d2\u05dc \u05e2\u05d2\u05d5\u05dc",
)
VOID = ("meta", "link", "img", "br", "hr", "input")


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.raw = text
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, name: str, tag: str | None = None) -> list[str]:
        return [each[name] for kind, each in self.tags if name in each and tag in (None, kind)]

    @property
    def turns(self) -> list[str]:
        return [each["id"] for kind, each in self.tags if kind == "article"]


def client(fleet: Fleet) -> TestClient:
    return TestClient(make_app(fleet.parts, fleet.desk), base_url="http://127.0.0.1")


def look(fleet: Fleet, named: str, query: str = "", status: int = 200) -> Page:
    answer = client(fleet).get(f"/sessions/{named}{query}")
    assert answer.status_code == status, answer.text
    return Page(answer.text)


def many(claim: Claim, count: int, *end: Event) -> list[Event]:
    """A run of many turns."""
    said = [event for number in range(count) for event in turn(f"tap {number}", cost_usd=0.1 * (number + 1))]
    return [*begun(claim), *said, *end]


def killed_and_taken_over(fleet: Fleet) -> Claim:
    first = fleet.claim(issue(7), "a" * 20, ttl_s=0.001)
    fleet.keep(first, [*begun(first), *turn("the tap", ends=False)])
    second = fleet.claim(issue(7), "b" * 20, worker="w2")
    resumed = begun(second, worker="w2", previous=first.run_id, took_over=True)
    fleet.keep(second, [*resumed, *turn("the washer", resumed=True), Ended("completed")])
    fleet.parts.registry.release(second)
    return second


def hostile_turn() -> list[Event]:
    told: list[Event] = []
    for number, words in enumerate(HOSTILE):
        call = f"c{number}"
        picture = {"type": "image", "source": {"type": "base64", "media_type": words, "data": words}}
        patch = {"structuredPatch": [{"lines": [words, f"+{words}", f"-{words}"]}]}
        told += [
            Thinking(words, f"m{number}", "m"),
            Assistant(words, f"m{number}", words),
            ToolUse(call, words, {"command": words, words: words}, f"m{number}", "m"),
            ToolResult(call, [{"type": "text", "text": words}, picture], is_error=bool(number % 2), details=patch),
        ]
    return [Prompt(" ".join(HOSTILE), resumed=False), *told, resulted()]


# --- Runs and turns ---------------------------------------------------------------------------------------------


def test_a_kill_and_a_takeover_are_told_where_they_happened(fleet: Fleet) -> None:
    claim = killed_and_taken_over(fleet)
    text = look(fleet, claim.session_id).text
    order = [
        "Run 1 on w1",
        "began the conversation",
        "Mend the tap.",
        "killed, or cut off: it never said how it ended; run 2 took over",
        "Run 2 on w2",
        "took over from run 1 on w1, whose worker had died or been cut off",
        "Mend the washer.",
        "completed",
    ]
    read = text[text.index("Turns on this page") :]
    read = read[read.index("Run 1 on") :]
    places = [read.index(each) for each in order]
    assert places == sorted(places)


def test_each_turn_has_an_address_of_its_own_and_leads_to_its_neighbours(fleet: Fleet) -> None:
    page = look(fleet, killed_and_taken_over(fleet).session_id)
    first, second = anchor_of("a" * 20, 1), anchor_of("b" * 20, 1)
    assert page.turns == [first, second]
    assert len(page.values("id")) == len(set(page.values("id")))
    anchors = {value.partition("#")[2] for value in page.values("href") if "#" in value}
    assert {first, second, "main"} <= anchors
    assert anchors <= set(page.values("id"))
    steps = {each["aria-label"]: each["href"] for kind, each in page.tags if kind == "a" and "aria-label" in each}
    assert steps["next turn"] == f"#{second}"
    assert steps["previous turn"] == f"#{first}"


def test_what_it_came_to_stands_above(fleet: Fleet) -> None:
    text = look(fleet, killed_and_taken_over(fleet).session_id).text
    for words in (
        "can be resumed",
        "agent fixer",
        "claude-large",
        "mend-it",
        "$0.50 cost",
        "2 turns",
        "2 runs",
        "/desk",
    ):
        assert words in text
    assert "everturn journal show 'fixer@https://forge.example/acme/web#7' --full" in text
    assert "everturn sessions export" in text


def test_a_timeline_and_the_cost_are_drawn(fleet: Fleet) -> None:
    page = look(fleet, killed_and_taken_over(fleet).session_id)
    assert {"timeline", "timeline-rows", "cost", "cost-rows"} <= set(page.values("id"))
    signs = {value for value in page.values("class", "svg") if value.startswith("sign")}
    assert {"sign died", "sign took_over", "sign ended"} <= signs
    assert page.values("style") == []


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ((Shutdown("SIGTERM"), Ended("stopped")), "stopped; asked to end: SIGTERM"),
        ((Ended("failed", "the disk is full"),), "failed; the disk is full"),
        ((Ended("lost"),), "lost"),
    ],
)
def test_how_a_run_ended_is_said(fleet: Fleet, end: Sequence[Event], told: str) -> None:
    claim = fleet.claim(issue(7), "a" * 20)
    fleet.keep(claim, [*begun(claim), *turn("the tap"), *end])
    fleet.parts.registry.release(claim)
    page = look(fleet, claim.session_id)
    assert told in page.text
    assert [value for value in page.values("class", "p") if value.startswith("closing")] != []


@pytest.mark.slow
def test_a_run_that_goes_on_says_so_and_hears_of_news_of_its_own(fleet: Fleet) -> None:
    claim = fleet.claim(issue(7), "a" * 20)
    fleet.keep(claim, [*begun(claim), *turn("the tap", ends=False)])
    page = look(fleet, claim.session_id)
    assert "The agent is at work" in page.text
    assert page.values("data-news") == [f"/live?session={claim.session_id}"]
    assert {"turns", "session-head", "session-charts", "turn-list"} <= {
        each["id"] for _, each in page.tags if "data-live" in each
    }


@pytest.mark.parametrize(
    ("ttl_s", "last", "told"),
    [
        (300.0, "open", "still running"),
        (0.001, "open", "no answer is stored"),
        (300.0, "over", "no answer is stored"),
    ],
)
def test_a_call_without_an_answer_runs_still_if_its_turn_goes_on(
    fleet: Fleet, ttl_s: float, last: str, told: str
) -> None:
    claim = fleet.claim(issue(7), "a" * 20, ttl_s=ttl_s)
    calls = [Prompt("Mend it.", resumed=False), ToolUse("call-a", "Read", {"file_path": "a"}, "m", "m")]
    fleet.keep(claim, [*begun(claim), *calls, *([] if last == "open" else turn("the next"))])
    text = look(fleet, claim.session_id).text
    assert [each for each in ("still running", "no answer is stored") if each in text] == [told]


def test_a_run_whose_worker_has_died_and_that_nobody_took_over_says_so(fleet: Fleet) -> None:
    claim = fleet.claim(issue(7), "a" * 20, ttl_s=0.001)
    fleet.keep(claim, [*begun(claim), *turn("the tap", ends=False)])
    text = look(fleet, claim.session_id).text
    assert "no end yet: its worker has died or cannot be reached, and nobody has taken over" in text
    assert "its worker has died" in text


# --- Pages of a long one ----------------------------------------------------------------------------------------


def test_a_long_session_is_shown_in_pages_from_its_beginning(fleet: Fleet) -> None:
    claim = fleet.claim(issue(7), "a" * 20)
    fleet.keep(claim, many(claim, 95, Ended("completed")))
    fleet.parts.registry.release(claim)
    first = look(fleet, claim.session_id)
    assert (len(first.turns), first.turns[0]) == (40, anchor_of("a" * 20, 1))
    assert "turns 1 to 40 of 95" in first.text
    assert "?from=41" in first.values("href")
    last = look(fleet, claim.session_id, "?from=81")
    assert last.turns[0] == anchor_of("a" * 20, 81)
    assert "turns 81 to 95 of 95" in last.text
    assert "began on an earlier page" in last.text
    assert "?from=41" in last.values("href")
    assert "completed" not in first.text[first.text.index("Run 1 on") :]
    assert last.text[last.text.index("Run 1 on") :].count("completed") == 1


def test_while_somebody_is_at_work_the_last_turns_are_shown_and_do_not_move_with_each_new_one(fleet: Fleet) -> None:
    claim = fleet.claim(issue(7), "a" * 20)
    fleet.keep(claim, many(claim, 95))
    page = look(fleet, claim.session_id)
    assert (page.turns[0], page.turns[-1]) == (anchor_of("a" * 20, 61), anchor_of("a" * 20, 95))


def test_a_link_to_a_turn_finds_its_page(fleet: Fleet) -> None:
    claim = fleet.claim(issue(7), "a" * 20)
    fleet.keep(claim, many(claim, 95, Ended("completed")))
    fleet.parts.registry.release(claim)
    anchor = anchor_of("a" * 20, 57)
    page = look(fleet, claim.session_id, f"?at={anchor}")
    assert anchor in page.turns
    assert all(f"#{value}" in page.values("href") for value in page.turns)


def test_the_timeline_leads_to_turns_on_this_page_and_on_others(fleet: Fleet) -> None:
    claim = fleet.claim(issue(7), "a" * 20)
    fleet.keep(claim, many(claim, 45, Ended("completed")))
    fleet.parts.registry.release(claim)
    (lane,) = lanes(fleet.desk.session(claim.session_id, 40))
    here, there = anchor_of("a" * 20, 41), anchor_of("a" * 20, 40)
    other_page = f"/sessions/{claim.session_id}?at={there}#{there}"
    assert [block.href for block in lane.blocks[39:41]] == [other_page, f"#{here}"]
    assert (len(lane.blocks), lane.calls, len(lane.ticks)) == (45, 45, 5)


@pytest.mark.parametrize(
    "query", ["?from=-1", "?from=x", "?from=99999999999999999999", "?from=\u0661", "?at=", "?at=z-9"]
)
def test_a_place_that_there_is_not_shows_the_beginning(fleet: Fleet, query: str) -> None:
    claim = killed_and_taken_over(fleet)
    assert len(look(fleet, claim.session_id, query).turns) == 2


def test_beyond_the_end_there_is_nothing_but_the_way_back(fleet: Fleet) -> None:
    page = look(fleet, killed_and_taken_over(fleet).session_id, "?from=400")
    assert page.turns == []
    assert "?from=1" in page.values("href")


# --- What somebody else wrote -----------------------------------------------------------------------------------


def test_hostile_text_becomes_no_tag_no_handler_and_no_address(fleet: Fleet) -> None:
    claim = fleet.claim(issue(7), "a" * 20, worker=HOSTILE[0])
    fleet.keep(claim, [*begun(claim, worker=HOSTILE[0]), *hostile_turn(), Ended("failed", " ".join(HOSTILE))])
    fleet.parts.registry.release(claim)
    page = look(fleet, claim.session_id)
    assert page.values("src", "img") == []
    assert len(page.values("src", "script")) == 1
    assert not [name for _, each in page.tags for name in each if name.startswith("on") or name == "style"]
    assert all(re.match(r"/|#|\?|https://", value) for value in page.values("href"))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202d\u202e]", page.raw)
    assert "{{ 7 * 7 }}" in page.text
    assert "[31m" not in page.text
    assert HOSTILE[0] in page.text


def test_an_image_is_shown_a_diff_has_its_signs_and_what_is_long_is_cut(fleet: Fleet) -> None:
    dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    picture = [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": dot}}]
    patch = {"structuredPatch": [{"lines": [" same", "-old", "+new"], "oldStart": 1, "oldLines": 2}]}
    claim = fleet.claim(issue(7), "a" * 20)
    events = [
        Prompt("Mend it.", resumed=False),
        *called("Read", {"file_path": "dot.png"}, picture, call_id="c1"),
        ToolUse("c2", "Edit", {"file_path": "tap.py"}, "m1", "m"),
        ToolResult("c2", "done", details=patch),
        *called("Bash", {"command": "yes"}, "y\n" * 1_000_000, call_id="c3"),
        answered("Done."),
        resulted(),
    ]
    fleet.keep(claim, [*begun(claim), *events, Ended("completed")])
    fleet.parts.registry.release(claim)
    page = look(fleet, claim.session_id)
    assert page.values("src", "img") == [f"data:image/png;base64,{dot}"]
    assert "<ins>+new\n</ins>" in page.raw
    assert "<del>-old\n</del>" in page.raw
    assert len(page.raw) < 200_000
    assert re.search(r"1,99\d,\d{3} characters of long texts are left out here", page.text)


def test_subagents_stand_in_the_call_that_started_them(fleet: Fleet) -> None:
    claim = fleet.claim(issue(7), "a" * 20)
    events = [
        Prompt("Mend it.", resumed=False),
        ToolUse("c1", "Agent", {"description": "Count washers", "prompt": "Count."}, "m1", "m"),
        Assistant("There are four.", "s1", "m", "c1"),
        ToolResult("c1", "four"),
        resulted(),
    ]
    fleet.keep(claim, [*begun(claim), *events, Ended("completed")])
    raw = look(fleet, claim.session_id).raw
    call = raw[raw.index('<details class="call') :]
    assert "There are four." in call[: call.index("</section>")]


# --- What is missing --------------------------------------------------------------------------------------------


def test_a_session_that_there_is_not_is_a_page_that_says_so(fleet: Fleet) -> None:
    page = look(fleet, "nothing-of-the-kind", status=404)
    assert "There is no session nothing-of-the-kind" in page.text


def test_the_beginning_of_an_id_and_a_work_item_lead_to_the_session(fleet: Fleet) -> None:
    claim = killed_and_taken_over(fleet)
    for named in (claim.session_id[:8], quote(issue(7).key, safe="")):
        answer = client(fleet).get(f"/sessions/{named}?from=1", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/sessions/{claim.session_id}?from=1")


def test_ids_that_begin_alike_are_a_conflict_that_says_so(fleet: Fleet) -> None:
    beginnings = [fleet.claim(issue(number), f"{number:020}").session_id[0] for number in range(17)]
    common = next(each for each in beginnings if beginnings.count(each) > 1)
    assert "sessions begin with" in look(fleet, common, status=409).text


def test_a_journal_that_cannot_be_read_is_named_and_the_others_are_shown(fleet: Fleet) -> None:
    claim = killed_and_taken_over(fleet)
    part = next(Path(urlsplit(fleet.journals.url).path).rglob(f"journal/*/{'a' * 20}/*.zst"))
    part.write_bytes(part.read_bytes()[:-9])
    page = look(fleet, claim.session_id)
    assert part.name in page.text
    assert "cannot be read" in page.text
    assert anchor_of("b" * 20, 1) in page.turns


def test_a_session_that_the_registry_has_forgotten_is_over_but_can_be_read(fleet: Fleet) -> None:
    claim = fleet.claim(issue(7), "a" * 20)
    fleet.keep(claim, [*begun(claim), *turn("the tap"), Ended("completed")])
    fleet.parts.registry.drop(claim.work, claim.session_id, "expired")
    page = look(fleet, claim.session_id)
    assert "over" in page.text
    assert page.turns == [anchor_of("a" * 20, 1)]


def test_a_session_without_journals_is_read_from_its_transcript(fleet: Fleet) -> None:
    claim = fleet.claim(issue(7), "a" * 20)
    fleet.parts.registry.release(claim)
    store = open_transcripts(fleet.settings, issue(7).key)
    entries, agents = tap()
    key = {"project_key": "p", "session_id": claim.session_id}

    async def write() -> None:
        await store.append(key, entries)
        for subpath, told in agents.items():
            await store.append({**key, "subpath": subpath}, told)
        await store.aclose()

    anyio.run(write)
    page = look(fleet, claim.session_id)
    assert page.turns[0] == anchor_of(None, 1)
    assert len(page.turns) == len(set(page.turns)) > 3
    assert "Run 1" not in page.text
    assert {"timeline", "call", "patch"} <= {
        name for each in page.values("class") + page.values("id") for name in each.split()
    }
    assert page.values("src", "img")[0].startswith("data:image/png;base64,")
    assert f"everturn sessions show {claim.session_id} --full" in page.text


def test_a_session_of_which_nothing_is_stored_says_so(fleet: Fleet) -> None:
    claim = fleet.claim(issue(7), "a" * 20)
    fleet.parts.registry.release(claim)
    text = look(fleet, claim.session_id).text
    assert "There is nothing to read" in text
