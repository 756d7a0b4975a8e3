"""What is cut from turns that are too long for a page, and how that is told."""

from __future__ import annotations

from everturn.conversations.conversation import Media, Notice, Result, Step, Text, ToolCall, Turn
from everturn.service.views.cutting import (
    IMAGE_CHARS,
    MEMBERS,
    PAGE_IMAGES_CHARS,
    SAID_CHARS,
    STEPS,
    Cutter,
    without_images,
)
from everturn.service.views.session import PlacedTurn

IMAGE = Media("image", "image/png", "x" * IMAGE_CHARS)


def test_what_was_cut_once_is_told_as_it_was_when_images_are_left_out_too() -> None:
    long = Text("x" * (SAID_CHARS + 1000))
    said: tuple[Step, ...] = (long, *(Text(str(number)) for number in range(STEPS + 10)), IMAGE)
    turn = Cutter().turn(Turn(1, "user", prompt=(IMAGE,), steps=said))
    count = PAGE_IMAGES_CHARS // IMAGE_CHARS
    first, *_ = without_images([PlacedTurn(position, None, turn) for position in range(count)])
    assert "… 1,000 more characters" in first.turn.steps[0].text  # type: ignore[union-attr]
    assert [each for each in first.turn.steps if isinstance(each, Notice)] == [Notice("left out", "12 more steps")]
    assert not [each for each in (*first.turn.prompt, *first.turn.steps) if isinstance(each, Media) and each.data]


def test_images_that_a_tool_answered_with_are_left_out_of_what_does_not_fit_on_a_page() -> None:
    call = ToolCall("c", "Read", {}, result=Result((IMAGE, Text("a tap"))))
    turns = [PlacedTurn(position, None, Turn(position, "user", steps=(call,))) for position in range(5)]
    shown = without_images(turns)
    (bare,) = shown[0].turn.calls
    assert bare.result is not None
    image, text = bare.result.content
    assert (image, text) == (Media("image", "image/png", None, "(too large to be shown here)"), Text("a tap"))
    assert shown[1:] == tuple(turns[1:])


def test_pieces_that_are_left_out_of_an_answer_are_told_and_counted() -> None:
    cutter = Cutter()
    turn = cutter.turn(Turn(1, "user", prompt=tuple(Text("four") for _ in range(MEMBERS + 3))))
    assert turn.prompt[-1] == Text("… 3 more")
    assert (len(turn.prompt), cutter.left_out) == (MEMBERS + 1, 12)
