"""Runs as they go on, on a terminal: each piece once, in order, however the events come."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everturn.cli.journal.live import LivePrinter
from everturn.cli.output import Terminal
from everturn.cli.printer import Printer
from everturn.journal.events import Assistant, Ended, Event, Prompt, Result, TextDelta, ToolResult, ToolUse
from everturn.journal.reading import RunRef
from journals import FIRST, SECOND, WORK, killed, recorded, resumed, said, started, streamed

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


class Screen:
    """A terminal of a width, and what is on it."""

    def __init__(self, *, width: int = 100, subagents: bool = False) -> None:
        self._file = io.StringIO()
        terminal = Terminal(file=self._file, width=width, highlight=False)
        printer = Printer(terminal, full=False, agents=subagents, branches=False)
        self.live = LivePrinter(printer, terminal, subagents=subagents)

    def shows(self, events: list[Event], *, run_id: str = FIRST, first: int = 1) -> str:
        """Print events at once, and return what is new."""
        before = len(self.text)
        self.live.take(RunRef(WORK, run_id), recorded(events, first))
        return self.text[before:]

    @property
    def text(self) -> str:
        return self._file.getvalue()


def begun(*events: Event) -> list[Event]:
    return [started(FIRST), Prompt("Mend the tap.", resumed=False), *events]


def test_text_is_printed_as_it_comes_and_not_again_when_it_is_whole() -> None:
    screen, events = Screen(), streamed("Let me look.")
    screen.shows(begun(events[0]))
    assert [screen.shows([event]) for event in events[1:]] == ["\n  Let ", "me ", "look."]
    assert screen.shows(said("Let me look.")[-2:]) == "\n"


def test_what_is_whole_already_is_shown_as_for_sessions() -> None:
    assert "\n  Let me look.\n" in Screen().shows(begun(*said("Let *me* look.")))


def test_a_result_stands_below_its_call_or_names_it_again() -> None:
    calls: list[Event] = [ToolUse(name, "Bash", {"command": f"echo {name}"}, "m1", "m") for name in "ab"]
    screen = Screen()
    shown = screen.shows(begun(calls[0], ToolResult("a", "it said a"), calls[1]))
    assert "  ▸ Bash echo a\n    it said a\n  ▸ Bash echo b\n" in shown
    assert screen.shows([ToolResult("b", "it said b")]) == "    it said b\n"
    screen.shows([ToolUse("c", "Bash", {"command": "echo c"}), *said("Meanwhile.", "m2")])
    assert screen.shows([ToolResult("c", "it said c")]).strip("\n") == "  ▸ Bash echo c\n    it said c"


def test_a_run_that_died_is_told_when_the_next_one_begins() -> None:
    screen = Screen()
    screen.shows(killed())
    shown = screen.shows(resumed(), run_id=SECOND)
    places = [
        shown.index(words) for words in ("· cut off", "✗ died", f"run {SECOND}", "washer is worn.", "■ completed")
    ]
    assert places == sorted(places)


def test_subagents_are_shown_on_demand_beside_what_goes_on() -> None:
    events = begun(
        ToolUse("a", "Agent", {"description": "Count washers"}, "m1", "m"), *said("There are four.", "s", parent="a")
    )
    assert "There are four." not in Screen().shows(events)
    assert "◆ Count washers\n\n      There are four.\n" in Screen(subagents=True).shows(events)


def test_a_turn_ends_with_what_it_took() -> None:
    done = Result("success", False, "Done.", 1, 10, 5, usage={"input_tokens": 5})
    answer = Assistant("Done.", "m", "m", usage={"input_tokens": 1200, "output_tokens": 30})
    shown = Screen().shows(begun(answer, done, Ended("completed")))
    assert "\n0.2 s · 1.2k in · 30 out\n\n■ completed\n" in shown


def test_what_is_passed_over_is_not_shown_but_known() -> None:
    screen = Screen()
    events: list[Event] = [*begun(*said("Early.")), Prompt("Go on.", resumed=True), *said("Late.", "m2")]
    screen.live.pass_over(RunRef(WORK, FIRST), recorded(events[:5]))
    shown = screen.shows(events[5:], first=6)
    assert "claim 1" in shown
    assert "2 prompt" in shown
    assert "Late." in shown
    assert "Early." not in shown


def test_no_piece_controls_the_terminal() -> None:
    screen = Screen()
    screen.shows(begun(*streamed("x")))
    shown = screen.shows([TextDelta("m1", 0, "\x1b]0;owned\x07\x9b2J\r[bold]")])
    assert shown == "\n  [bold]"


@st.composite
def scripts(draw: st.DrawFn) -> tuple[list[Event], list[int]]:
    """A run of which every word is another one, cut into batches, and perhaps killed."""
    events: list[Event] = begun()
    word = 0
    for answer in range(draw(st.integers(1, 4))):
        for index in range(draw(st.integers(1, 3))):
            count = draw(st.integers(1, 4))
            text = " ".join(f"w{word + each}x" for each in range(count))
            word += count
            events += said(text, f"m{answer}", index) if draw(st.booleans()) else [Assistant(text, f"m{answer}", "m")]
        if draw(st.booleans()):
            events.append(ToolUse(f"c{answer}", "Bash", {"command": f"w{word}x"}, f"m{answer}", "m"))
            events += [ToolResult(f"c{answer}", "")] if draw(st.booleans()) else []
            word += 1
    events = events[: draw(st.integers(2, len(events)))]
    return events, draw(st.lists(st.integers(0, len(events))))


@pytest.mark.slow
@QUICK
@given(scripts())
def test_each_word_is_printed_once_and_in_order_however_the_events_come(
    script: tuple[list[Event], list[int]],
) -> None:
    events, cuts = script
    screen, at = Screen(width=5000), 0
    for cut in [*sorted(cuts), len(events)]:
        screen.shows(events[at:cut], first=at + 1)
        at = max(at, cut)
    screen.shows(resumed(), run_id=SECOND)
    written = "".join(words(event) for event in events)
    shown = re.findall(r"w\d+x", screen.text)
    assert [*dict.fromkeys(shown)] == [*dict.fromkeys(re.findall(r"w\d+x", written))]
    calls = {word for event in events if isinstance(event, ToolUse) for word in re.findall(r"w\d+x", words(event))}
    assert all(shown.count(word) == 1 for word in shown if word not in calls)  # a result may name its call again


def words(event: Event) -> str:
    if isinstance(event, TextDelta | Assistant):
        return f"{event.text} "
    return f"{event.input['command']} " if isinstance(event, ToolUse) else ""


def test_a_run_without_its_beginning_is_shown() -> None:
    assert "its beginning is missing" in Screen().shows([Prompt("Go.", resumed=False)])
