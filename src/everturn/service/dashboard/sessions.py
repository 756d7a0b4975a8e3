"""What the page of a session shows, in order: its runs and their turns, where each ends, and where others stand."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from markupsafe import Markup

from everturn.conversations.conversation import Turn, moment
from everturn.conversations.wording import duration, one_line, plural, title
from everturn.service.dashboard.charts import Bound, Point
from everturn.service.dashboard.timeline import SIGNS, Block, Lane, Sign, picture
from everturn.service.dashboard.words import anchor_address, anchor_of
from everturn.service.views.session import Mark, PlacedTurn, RunView, SessionPage

TURNS = 40  # on a page


@dataclass(frozen=True, slots=True)
class Placed:
    """A turn on the page.

    Attributes:
        placed: The turn.
        anchor: Its id on the page.
        title: What began it, and whether it was broken off.
        before: The id of the turn before it; empty if it is on another page.
        after: That of the turn after it.
        goes_on: Whether the agent is at work on it, so that what has no answer may get one.
    """

    placed: PlacedTurn
    anchor: str
    title: str
    before: str = ""
    after: str = ""
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class Chapter:
    """A run, with its turns that are on the page.

    Attributes:
        run: The run; `None`: there are no journals.
        number: Its place among the runs, from 1.
        anchor: Its id on the page.
        begins: Whether it begins on this page.
        ends: Whether it ends on this page.
        opening: How it began, for people; sentences without a final stop.
        closing: How it ended; the same.
        tone: How to show that: `good`, `warn`, `bad` or `calm`.
        picture: The sign of its end, as on the timeline.
        pause: How much time passed between the run before and this one; empty if that is not known.
        turns: Its turns.
    """

    run: RunView | None
    number: int
    anchor: str
    begins: bool
    ends: bool
    opening: tuple[str, ...] = ()
    closing: tuple[str, ...] = ()
    tone: str = "calm"
    picture: Markup = field(default_factory=Markup)
    pause: str = ""
    turns: tuple[Placed, ...] = ()


def positions(page: SessionPage) -> dict[str, int]:
    """Return the places of all turns in the conversation, from 1, by their ids."""
    found: dict[str, int] = {}
    by_run: dict[str | None, list[int]] = {}
    for mark in page.marks:
        if mark.kind == "turn" and mark.position is not None:
            by_run.setdefault(mark.run_id, []).append(mark.position)
    prompts = {run.run_id: run.turns for run in page.runs}
    for run_id, places in by_run.items():
        first, last = min(places), max(places)
        # What came before the first prompt is a turn, too, with the number 0.
        shift = first if last - first + 1 > prompts.get(run_id or "", len(places)) else first - 1
        found.update({anchor_of(run_id, position - shift): position for position in places})
    return found


def chapters(page: SessionPage) -> list[Chapter]:
    """Return the runs of a page, with their turns."""
    if not page.runs:
        return _without_runs(page)
    numbers = _numbers(page)
    placed = [(numbers.get(each.run_id or "", 1), each) for each in page.turns]
    reaches_end = page.offset + len(page.turns) >= page.total
    first = 1 if page.offset == 0 or not placed else placed[0][0]
    last = len(page.runs) if reaches_end or not placed else placed[-1][0]
    by_run: dict[int, list[Placed]] = defaultdict(list)
    for turn in _linked(page):
        by_run[numbers.get(turn.placed.run_id or "", 1)].append(turn)
    found = []
    for number in range(first, last + 1):
        run = page.runs[number - 1]
        own = tuple(by_run[number])
        begins = number > first or page.offset == 0 or not own or own[0].placed.turn.number <= 1
        tone, sign, closing = _closing(page, run, numbers)
        found.append(
            Chapter(
                run=run,
                number=number,
                anchor=f"run-{run.run_id}",
                begins=begins,
                ends=number < last or reaches_end,
                opening=_opening(page, run, number),
                closing=closing,
                tone=tone,
                picture=picture(sign) if sign else Markup(),
                pause=_pause(page.runs[number - 2], run) if number > 1 else "",
                turns=own,
            )
        )
    return found


def lanes(page: SessionPage) -> list[Lane]:
    """Return the runs of a session as lanes of a timeline, which lead to turns."""
    anchors = {position: anchor for anchor, position in positions(page).items()}
    if not page.runs:
        begin = min((mark.at for mark in page.marks), default=None)
        end = max((mark.until or mark.at for mark in page.marks), default=None)
        return [_lane(page, Lane("Transcript", "", begin, end), page.marks, anchors)] if page.marks else []
    numbers = _numbers(page)
    marks: dict[str | None, list[Mark]] = defaultdict(list)
    for mark in page.marks:
        marks[mark.run_id].append(mark)
    found = []
    for number, run in enumerate(page.runs, 1):
        name = f"Run {number}" + (f" · {one_line(run.worker)}" if run.worker else "")
        note = "; ".join((*_opening(page, run, number), *_closing(page, run, numbers)[2]))
        goes_on = page.session.state == "live" and number == len(page.runs) and run.end == "open"
        lane = Lane(name, note, run.started_at, None if goes_on else run.last_at)
        found.append(_lane(page, lane, marks[run.run_id], anchors))
    return found


def points(page: SessionPage) -> list[Point]:
    """Return what a session had cost at the end of each turn."""
    return [Point(each.at, each.cost_usd) for each in page.costs]


def bounds(page: SessionPage) -> list[Bound]:
    """Return where the runs of a session began."""
    return [
        Bound(run.started_at, f"run {number}")
        for number, run in enumerate(page.runs, 1)
        if run.started_at is not None
    ]


def at_work_s(page: SessionPage) -> float | None:
    """Return how long all turns took together, in seconds; `None` if nobody knows."""
    known = [mark.until - mark.at for mark in page.marks if mark.kind == "turn" and mark.until is not None]
    return sum(max(0.0, each) for each in known) if known else None


def commands(page: SessionPage) -> list[tuple[str, str]]:
    """Return commands that show more, each with what it is for."""
    session_id = shlex.quote(page.session.session_id)
    found = [("All of it, in a terminal", page.command or f"everturn sessions show {session_id}")]
    if page.source == "journals":
        found.append(("As it goes on", f"everturn journal show --follow {shlex.quote(page.session.work)}"))
    found.append(("A page to keep", f"everturn sessions export {session_id} --format html --subagents --output ."))
    return found


def _without_runs(page: SessionPage) -> list[Chapter]:
    if not page.turns:
        return []
    return [Chapter(None, 1, "transcript", begins=False, ends=False, turns=tuple(_linked(page)))]


def _linked(page: SessionPage) -> list[Placed]:
    """Return turns with their ids and those of their neighbours. No id stands twice, whatever the turns say."""
    anchors: dict[str, None] = {}
    for each in page.turns:
        anchor = anchor_of(each.run_id, each.turn.number)
        anchors[anchor if anchor not in anchors else f"{anchor}-{each.position}"] = None
    named = ["", *anchors, ""]
    under_way = _under_way(page)
    around = zip(page.turns, named, named[1:], named[2:], strict=False)
    return [
        Placed(each, anchor, _title(each.turn), before, after, goes_on=each.position == under_way)
        for each, before, anchor, after in around
    ]


def _under_way(page: SessionPage) -> int | None:
    """Return the place of the turn that an agent is at work on, as far as is known."""
    if page.session.state != "live" or not page.runs or page.runs[-1].end != "open":
        return None
    last = next((mark for mark in reversed(page.marks) if mark.kind == "turn"), None)
    is_open = last is not None and last.until is None and last.run_id == page.runs[-1].run_id
    return last.position if last is not None and is_open else None


def _title(turn: Turn) -> str:
    """Return what a turn is; how its run began stands before it already."""
    return title(replace(turn, claim=None, resumed=False))


def _opening(page: SessionPage, run: RunView, number: int) -> tuple[str, ...]:
    before = page.runs[number - 2] if number > 1 else None
    whom = "" if before is None else f" from run {number - 1}" + (f" on {before.worker}" if before.worker else "")
    found = []
    if run.started_at is None or run.epoch is None:
        found.append("its beginning is missing")
    if run.took_over:
        found.append(f"took over{whom}, whose worker had died or been cut off")
    elif run.resumed:
        found.append(f"resumed{whom}")
    if run.began_anew:
        found.append("the conversation was not found, and another one was begun in its place")
    return tuple(found) or ("began the conversation" if number == 1 else "began",)


def _numbers(page: SessionPage) -> dict[str, int]:
    """Return which run of a session each is, from 1."""
    return {run.run_id: number for number, run in enumerate(page.runs, 1)}


def _closing(page: SessionPage, run: RunView, numbers: Mapping[str, int]) -> tuple[str, str, tuple[str, ...]]:
    """Return how a run ended: the tone, the sign, and the words."""
    follower = numbers.get(run.successor or "")
    taker = "another run" if follower is None else f"run {follower}"
    asked = (f"asked to end: {one_line(run.shutdown_reason)}",) if run.shutdown_reason else ()
    if run.outcome is not None:
        tone = "good" if run.outcome == "completed" else "bad" if run.outcome == "failed" else "warn"
        why = (one_line(run.error),) if run.error else ()
        sign = "failed" if run.outcome == "failed" else "shutdown" if asked else "ended"
        return tone, sign, (one_line(run.outcome), *asked, *why)
    if run.end == "died":
        return "bad", "died", ("killed, or cut off: it never said how it ended", *asked, f"{taker} took over")
    if run.end == "silent":
        return "warn", "died", ("nothing tells how it ended", *asked, f"{taker} came after it")
    if page.session.state == "live":
        return "good", "", asked
    return "warn", "", ("no end yet: its worker has died or cannot be reached, and nobody has taken over", *asked)


def _lane(page: SessionPage, lane: Lane, marks: Sequence[Mark], anchors: dict[int, str]) -> Lane:
    """Return a lane with what happened in its run."""
    turns = [mark for mark in marks if mark.kind == "turn"]
    here = {mark.position for mark in turns} & {each.position for each in page.turns}
    died = any(mark.kind == "died" for mark in marks)
    blocks = []
    for mark in turns:
        is_cut_off = died and mark is turns[-1] and mark.until is None
        until = mark.until if mark.until is not None else lane.end if mark is turns[-1] else mark.at
        anchor = anchors.get(mark.position or 0)
        address = anchor_address(page.session.session_id, anchor or "")
        href = "" if anchor is None else address[address.index("#") :] if mark.position in here else address
        told = f"{mark.text} ({plural(mark.calls, 'tool call')}{', cut off' if is_cut_off else ''})"
        blocks.append(Block(mark.at, until, told, href, is_cut_off))
    whens = (moment(call.at) for each in page.turns if each.position in here for call in each.turn.calls)
    return replace(
        lane,
        blocks=tuple(blocks),
        ticks=tuple(when.timestamp() for when in whens if when is not None),
        signs=tuple(Sign(mark.at, mark.kind, mark.text) for mark in marks if mark.kind in SIGNS),
        calls=sum(mark.calls for mark in turns),
    )


def _pause(before: RunView, run: RunView) -> str:
    if before.last_at is None or run.started_at is None or run.started_at < before.last_at:
        return ""
    return f"{duration(run.started_at - before.last_at)} later"
