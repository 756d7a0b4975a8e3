"""What the fold makes of a run's events."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from everturn.journal.events import (
    Assistant,
    BeganAnew,
    Damaged,
    Ended,
    Event,
    MirrorError,
    Prompt,
    RateLimit,
    Result,
    Resumed,
    Shutdown,
    Started,
    Stream,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolInputDelta,
    ToolResult,
    ToolUse,
    User,
)
from everturn.journal.reading import RunRef
from everturn.mirrors.keeping import catch_up
from everturn.mirrors.sqlite import SqliteMirror
from everturn.mirrors.values import PIECE_CHARS
from mirrors.ground import NOON_MS, REF, Ground, Line, a_run, lines_of_events, matches, rows


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def fold(ground: Ground, *events: Event, ref: RunRef = REF) -> SqliteMirror:
    return fold_lines(ground, lines_of_events(events), ref=ref)


def fold_lines(ground: Ground, lines: list[Any], ref: RunRef = REF) -> SqliteMirror:
    ground.store(ref, lines)
    mirror = ground.mirror()
    catch_up(ground.journals, mirror, metrics=ground.metrics)
    return mirror


def started(epoch: int = 1, session_id: str = "s", run_id: str = "run-1") -> Started:
    return Started(run_id, "task:t", session_id, epoch, "w", "/desk")


def test_a_run_says_who_ran_what_and_how_it_ended(ground: Ground) -> None:
    mirror = fold(ground, *a_run())
    query = (
        "SELECT work_key, session_id, agent, repo, worker, model, outcome, turns, tool_calls, tool_failures FROM runs"
    )
    assert rows(mirror, query) == [
        ("task:t", "session-1", "fixer", "acme/web", "worker-1", "m", "completed", 1, 2, 1),
    ]
    assert rows(mirror, "SELECT started_at, ended_at FROM runs") == [
        ("2025-11-20T12:00:01.000Z", "2025-11-20T12:00:12.000Z")
    ]


def test_the_last_result_tells_what_a_run_has_used(ground: Ground) -> None:
    mirror = fold(ground, *a_run())
    tokens = "input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_usd"
    assert rows(mirror, f"SELECT {tokens}, cost_is_partial FROM runs") == [(70, 50, 30, 0, 0.5, 0)]
    assert rows(mirror, f"SELECT model, {tokens} FROM model_usage") == [("m", 70, 50, 30, 0, 0.5)]
    assert rows(mirror, f"SELECT {tokens} FROM turns") == [(7, 5, 3, 2, 0.5)]


def test_of_a_run_that_was_killed_the_answers_tell_what_it_used(ground: Ground) -> None:
    mirror = fold(
        ground,
        started(),
        Prompt("go", resumed=False),
        Assistant("one", "msg-1", "m", usage={"input_tokens": 10, "output_tokens": 1}),
        ToolUse("c", "Read", {}, "msg-1", "m", usage={"input_tokens": 10, "output_tokens": 30}),
        Assistant("two", "msg-2", "m", usage={"input_tokens": 5, "output_tokens": 2}),
    )
    assert rows(mirror, "SELECT input_tokens, output_tokens, cost_usd, cost_is_partial FROM runs") == [
        (15, 32, None, 1)
    ]
    assert rows(mirror, "SELECT input_tokens, output_tokens FROM turns") == [(15, 32)]
    assert rows(mirror, "SELECT model, output_tokens FROM model_usage") == [("m", 32)]


def result(cost_usd: float, tokens: int) -> Result:
    models = {"m": {"inputTokens": tokens, "costUSD": cost_usd}}
    usage = {"input_tokens": tokens}
    return Result("success", False, "", 1, 1, 1, cost_usd=cost_usd, usage=usage, model_usage=models)


def test_costs_of_turns_are_what_each_has_added(ground: Ground) -> None:
    mirror = fold(
        ground,
        started(),
        *(Prompt("a", resumed=False), result(0.5, 10), Prompt("b", resumed=False), result(0.75, 30)),
    )
    assert rows(mirror, "SELECT turn, cost_usd FROM turns ORDER BY turn") == [(1, 0.5), (2, 0.25)]
    assert rows(mirror, "SELECT cost_usd, input_tokens FROM runs") == [(0.75, 30)]


def test_what_earlier_runs_of_a_conversation_took_is_not_counted_again(ground: Ground) -> None:
    before = {"m": {"inputTokens": 10, "costUSD": 0.5}, "other": {"inputTokens": 5, "costUSD": 0.0}}
    mirror = fold(
        ground,
        started(2),
        Resumed("s", "run-0", took_over=False, cost_usd=0.5, model_usage=before),
        *(Prompt("b", resumed=True), result(0.75, 30), Prompt("c", resumed=False), result(1.0, 36)),
    )
    assert rows(mirror, "SELECT cost_usd, input_tokens FROM runs") == [(0.5, 26)]
    assert rows(mirror, "SELECT model, cost_usd, input_tokens FROM model_usage") == [("m", 0.5, 26)]
    assert rows(mirror, "SELECT turn, cost_usd FROM turns ORDER BY turn") == [(1, 0.25), (2, 0.25)]


def test_a_model_that_only_earlier_runs_used_is_none_of_this_run(ground: Ground) -> None:
    before = {"m": {"inputTokens": 10, "costUSD": 0.5}, "small": {"inputTokens": 5, "costUSD": 0.25}}
    models = {**before, "m": {"inputTokens": 30, "costUSD": 1.0, "contextWindow": 1000}}
    mirror = fold(
        ground,
        started(2),
        Resumed("s", "run-0", took_over=False, cost_usd=0.75, model_usage=before),
        *(Prompt("b", resumed=True), Result("success", False, "", 1, 1, 1, cost_usd=1.25, model_usage=models)),
    )
    assert rows(mirror, "SELECT model, cost_usd, input_tokens FROM model_usage") == [("m", 0.5, 20)]


def test_an_agent_that_begins_to_count_anew_is_believed(ground: Ground) -> None:
    before = {"m": {"inputTokens": 10, "costUSD": 0.5}}
    mirror = fold(
        ground,
        started(2),
        Resumed("s", "run-0", took_over=False, cost_usd=0.5, model_usage=before),
        *(Prompt("b", resumed=True), result(0.25, 4)),
    )
    assert rows(mirror, "SELECT cost_usd, input_tokens FROM runs") == [(0.25, 4)]


def test_what_came_before_a_conversation_that_was_lost_is_not_taken_from_the_next(ground: Ground) -> None:
    mirror = fold(
        ground,
        started(2),
        Resumed("s", "run-0", took_over=False, cost_usd=0.5, model_usage={"m": {"inputTokens": 10}}),
        BeganAnew("s2", "s"),
        *(Prompt("b", resumed=False), result(0.75, 30)),
    )
    assert rows(mirror, "SELECT cost_usd, input_tokens FROM runs") == [(0.75, 30)]


def test_the_end_of_an_answer_tells_what_it_took_in_the_end(ground: Ground) -> None:
    usage = {"input_tokens": 10, "output_tokens": 1}
    begun = {"type": "message_start", "message": {"id": "msg", "model": "m", "usage": usage}}
    mirror = fold(
        ground,
        started(),
        Prompt("go", resumed=False),
        *(Stream("msg", begun), TextDelta("msg", 0, "one"), Assistant("one", "msg", "m", usage=usage)),
        Stream("msg", {"type": "message_delta", "usage": {"output_tokens": 38}}),
        Stream("sub", {**begun, "message": {**begun["message"], "id": "sub", "model": "small"}}, "call"),
    )
    query = "SELECT model, input_tokens, output_tokens FROM model_usage ORDER BY model"
    assert rows(mirror, query) == [("m", 10, 38), ("small", 10, 1)]
    assert rows(mirror, "SELECT input_tokens, output_tokens, cost_is_partial FROM runs") == [(20, 39, 1)]


def test_what_a_lost_conversation_took_is_not_forgotten(ground: Ground) -> None:
    mirror = fold(
        ground,
        started(),
        *(Prompt("a", resumed=True), result(0.5, 10)),
        BeganAnew("s2", "s"),
        *(Prompt("a", resumed=False), result(0.25, 4)),
    )
    assert rows(mirror, "SELECT session_id, began_anew, cost_usd, input_tokens FROM runs") == [("s2", 1, 0.75, 14)]


def test_a_run_that_never_ended_has_died_once_another_has_begun(ground: Ground) -> None:
    ground.store(RunRef("task:t", "run-2"), lines_of_events([started(2, run_id="run-2")]))
    mirror = fold(ground, started(1), Shutdown("SIGTERM"))
    assert rows(mirror, "SELECT run_id, outcome FROM run_outcomes ORDER BY run_id") == [
        ("run-1", "died"),
        ("run-2", "open"),
    ]
    assert rows(mirror, "SELECT runs, died FROM work_items") == [(2, 1)]
    assert rows(mirror, "SELECT runs, died FROM sessions") == [(2, 1)]
    assert rows(mirror, "SELECT day, runs FROM days") == [("2025-11-20", 2)]


def test_a_run_that_begins_after_the_registry_lost_its_row_is_the_later_one(ground: Ground) -> None:
    ground.store(REF, lines_of_events([started(5)]))
    ground.store(RunRef("task:t", "run-2"), lines_of_events([started(1, run_id="run-2")], NOON_MS + 60_000))
    third = lines_of_events([started(2, run_id="run-3")], NOON_MS + 90_000)
    mirror = fold_lines(ground, third, RunRef("task:t", "run-3"))
    assert rows(mirror, "SELECT run_id, outcome FROM run_outcomes ORDER BY run_id") == [
        ("run-1", "died"),
        ("run-2", "died"),
        ("run-3", "open"),
    ]


def test_the_run_that_names_another_as_the_one_before_is_later_whatever_the_clocks_say(ground: Ground) -> None:
    before = replace(started(2, run_id="run-2"), previous_run_id="run-1")
    ground.store(RunRef("task:t", "run-2"), lines_of_events([before], NOON_MS - 60_000))
    mirror = fold(ground, started(1))
    assert rows(mirror, "SELECT run_id, outcome FROM run_outcomes ORDER BY run_id") == [
        ("run-1", "died"),
        ("run-2", "open"),
    ]


def test_tool_calls_know_how_they_ended(ground: Ground) -> None:
    mirror = fold(ground, *a_run(), ToolUse("open", "Bash", {"command": "sleep"}))
    query = "SELECT tool, turn, is_error, duration_ms, result_seq FROM tool_calls ORDER BY seq"
    assert rows(mirror, query) == [
        ("Read", 1, 0, 1000, 7),
        ("Edit", 1, 1, 1000, 9),
        ("Bash", 1, None, None, None),
    ]


def test_files_inside_the_workdir_are_named_from_there(ground: Ground) -> None:
    mirror = fold(ground, *a_run())
    assert rows(mirror, "SELECT path, action, tool FROM files ORDER BY seq") == [
        ("src/main.py", "read", "Read"),
        ("/etc/other", "edit", "Edit"),
    ]


def test_errors_of_all_kinds_are_found(ground: Ground) -> None:
    mirror = fold(
        ground,
        started(),
        Assistant("", "msg", "<synthetic>", error="rate_limit"),
        MirrorError("not stored"),
        RateLimit("rejected", {"resets": 5}),
        RateLimit("allowed"),
        ToolResult("unknown", "bad", is_error=True),
        Result("error_during_execution", True, None, 0, 0, 0, errors=["one", "two"]),
        Ended("failed", "it broke"),
    )
    assert rows(mirror, "SELECT kind, message FROM errors ORDER BY seq") == [
        ("model", "rate_limit"),
        ("transcript", "not stored"),
        ("rate_limit", "resets: 5"),
        ("tool", "bad"),
        ("result", "one\ntwo"),
        ("run", "it broke"),
    ]


def test_prompts_answers_thoughts_and_tools_can_be_searched(ground: Ground) -> None:
    mirror = fold(ground, *a_run(words="needle"), Thinking("hmm needle"), User("your task: needle", parent="call-1"))
    found = [(kind, partial) for _, _, _, kind, partial in matches(mirror, "needle")]
    assert found == [("prompt", 0), ("answer", 0), ("tool_result", 0), ("thinking", 0), ("user", 0)]
    assert [kind for *_, kind, _ in matches(mirror, "broken")] == ["tool_input"]
    assert rows(mirror, "SELECT tool FROM texts WHERE kind = 'tool_result' ORDER BY seq") == [("Read",), ("Edit",)]


def test_pieces_of_a_block_count_only_if_it_was_never_completed(ground: Ground) -> None:
    mirror = fold(
        ground,
        started(),
        Prompt("go", resumed=False),
        *(ThinkingDelta("msg", 0, "I wonder"), Thinking("I wonder", "msg")),
        *(TextDelta("msg", 1, "Let me "), TextDelta("msg", 1, "look")),
        Assistant("Let me look", "msg"),
        *(TextDelta("other", 0, "a sub", "call"), TextDelta("msg", 2, "And th"), TextDelta("msg", 2, "en I")),
        ToolInputDelta("other", 1, '{"command": "l', "call"),
    )
    query = "SELECT seq, kind, partial, parent_call_id, text FROM texts WHERE turn = 1 ORDER BY seq"
    assert rows(mirror, query) == [
        (2, "prompt", 0, None, "go"),
        (4, "thinking", 0, None, "I wonder"),
        (7, "answer", 0, None, "Let me look"),
        (8, "answer", 1, "call", "a sub"),
        (9, "answer", 1, None, "And then I"),
        (11, "tool_input", 1, "call", '{"command": "l'),
    ]


def test_a_new_answer_gives_up_what_the_one_before_had_begun(ground: Ground) -> None:
    mirror = fold(
        ground, started(), TextDelta("a", 0, "cut sho"), TextDelta("b", 0, "again"), Assistant("again", "b")
    )
    assert [(text, partial) for text, partial in rows(mirror, "SELECT text, partial FROM texts ORDER BY seq")] == [
        ("cut sho", 1),
        ("again", 0),
    ]


def test_a_long_text_takes_several_rows_and_is_cut_between_words(ground: Ground) -> None:
    text = "word " * PIECE_CHARS
    mirror = fold(ground, Prompt(text, resumed=False))
    found = rows(mirror, "SELECT piece, text FROM texts ORDER BY piece")
    assert "".join(piece for _, piece in found) == text
    assert [number for number, _ in found] == list(range(len(found)))
    assert all(len(piece) <= PIECE_CHARS and piece.endswith("word ") for _, piece in found)


def test_a_resumed_run_says_so(ground: Ground) -> None:
    mirror = fold(ground, started(2), Resumed("s", "run-0", took_over=True))
    assert rows(mirror, "SELECT resumed, took_over FROM runs") == [(1, 1)]


def test_what_is_newer_than_this_release_is_counted_and_passed_over(ground: Ground) -> None:
    lines = lines_of_events([started(), Prompt("hi", resumed=False), Ended("completed")])
    lines[1] |= {"v": 2}
    mirror = fold_lines(
        ground, [*lines[:2], {**lines[1], "v": 1, "seq": 3, "type": "hologram"}, {**lines[2], "seq": 4}]
    )
    assert rows(mirror, "SELECT events, unknown_events, outcome, turns FROM runs") == [(4, 2, "completed", 0)]
    assert ground.counted("mirror_events", outcome="unknown") == 2
    assert ground.counted("mirror_events", outcome="folded") == 2


JUNK: list[Line] = [
    {"type": "prompt", "text": 5, "resumed": False},
    {"type": "prompt"},
    {"type": "tool_use", "call_id": [], "name": "x", "input": {}},
    {"type": "tool_result", "call_id": {"a": 1}, "content": None},
    {"type": "text_delta", "message_id": [], "index": 0, "text": "x", "parent": None},
    {"type": "text_delta", "message_id": "m", "index": None, "text": "x", "parent": {}},
    {"type": "result", "subtype": "s", "is_error": "yes"},
    {"type": "assistant", "text": "x", "usage": "much"},
    {"type": "started", "epoch": "first"},
    {"type": "ended", "outcome": None},
    {"type": "init", "model": 1 << 60},
]


@pytest.mark.parametrize("junk", JUNK, ids=lambda line: str(line["type"]))
def test_a_field_of_a_wrong_type_spoils_its_event_only(ground: Ground, junk: Line) -> None:
    lines = lines_of_events([started(), Prompt("hi", resumed=False), Ended("completed")])
    lines[1] = {**junk, "v": 1, "seq": 2, "at_ms": lines[1]["at_ms"]}
    mirror = fold_lines(ground, lines)
    assert rows(mirror, "SELECT events, unreadable_events, turns, outcome FROM runs") == [(3, 1, 0, "completed")]
    assert ground.counted("mirror_events", outcome="unreadable") == 1


def test_values_that_databases_refuse_are_no_trouble(ground: Ground) -> None:
    call = ToolUse("c", "Read", {"file_path": "/desk/\ud800", "deep": 1 << 80, "inf": float("inf")}, "msg", "m")
    odd = Result("success", False, "\udfff", 1, 1, 1, cost_usd=float("inf"), usage={"input_tokens": 1 << 70})
    huge = replace(odd, cost_usd=10**400, model_usage={"m": {"costUSD": 10**400}})
    mirror = fold(ground, started(), Prompt("lone \ud800 \x00 surrogate", resumed=False), call, odd, huge)
    assert matches(mirror, "surrogate")
    assert rows(mirror, "SELECT path FROM files") == [("?",)]
    assert rows(mirror, "SELECT cost_usd, input_tokens FROM runs") == [(None, 0)]


def test_lines_that_are_none_are_counted(ground: Ground) -> None:
    lines: list[Any] = lines_of_events([started(), Damaged("AAAA")])
    mirror = fold_lines(ground, [*lines, 5, {"seq": 3}, {**lines[0], "seq": 1 << 60}, {**lines[0], "at_ms": 1 << 70}])
    assert rows(mirror, "SELECT events, unreadable_events FROM runs") == [(2, 1)]
    assert ground.counted("mirror_events", outcome="unreadable") == 5


def test_times_that_no_calendar_has_are_none(ground: Ground) -> None:
    lines = [{**line, "at_ms": 1 << 52} for line in lines_of_events([started(), Prompt("x", resumed=False)])]
    mirror = fold_lines(ground, lines)
    assert rows(mirror, "SELECT started_at, last_event_at FROM runs") == [(None, None)]
