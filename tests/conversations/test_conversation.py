"""Entries become a conversation: what the agent command has written, read as a person would tell it."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from claude_agent_sdk import InMemorySessionStore, get_session_messages_from_store, project_key_for_directory

from everturn.conversations import wording
from everturn.conversations.conversation import Conversation, Media, Notice, Text, Thinking, ToolCall, Usage, as_data
from everturn.conversations.reading import claims_in, read_conversation
from everturn.conversations.threads import sort_out
from everturn.conversations.turns import Taken
from everturn.log.entries import encode
from everturn.log.format import decode, encode_part, encode_segment
from everturn.log.names import Span
from everturn.log.reader import Log
from recorded import FENCE_AGENT, TAP_AGENT, answered, fence, said, tap, text, tool_result, tool_use


def prompts(found: Conversation) -> list[str]:
    return [" ".join(each.text for each in turn.prompt if isinstance(each, Text)) for turn in found.turns]


def calls(found: Conversation) -> list[ToolCall]:
    return [call for turn in found.turns for call in turn.calls]


def talk(*entries: Any, **more: Any) -> Conversation:
    return read_conversation(entries, **more)


# --- What was recorded ------------------------------------------------------------------------------------------


def test_a_recorded_conversation_is_told_turn_by_turn() -> None:
    found = read_conversation(*tap())
    assert [(turn.number, turn.origin) for turn in found.turns] == [
        (1, "user"),
        (2, "user"),
        (3, "user"),
        (4, "user"),
        (5, "user"),
        (6, "compaction"),
        (7, "command"),
        (8, "user"),
    ]
    assert prompts(found)[:5] == [
        "Mend the leaking tap in `tap.py`, please.",
        "And how many washers does this one need?",
        "Test it under pressure.",
        "Go on.",
        "Paint it red.",
    ]
    first = found.turns[0]
    assert isinstance(first.steps[0], Thinking)
    assert first.steps[1] == Text("Let me look at what is here.")
    assert [call.name for call in first.calls] == [
        "Bash",
        "Write",
        "Write",
        "Bash",
        "Edit",
        "Bash",
        "Read",
        "Bash",
        "Agent",
    ]
    assert first.models == ("claude-sonnet-4-5",)
    assert first.seconds == pytest.approx(0.799)


@pytest.mark.parametrize("length", [55, 78, 101, 109])
def test_the_thread_is_the_one_that_the_sdk_finds(length: int) -> None:
    entries = tap()[0][:length]

    async def main() -> list[str]:
        store = InMemorySessionStore()
        session = entries[0]["sessionId"]
        await store.append({"project_key": project_key_for_directory("/x"), "session_id": session}, entries)
        return [message.uuid for message in await get_session_messages_from_store(store, session, directory="/x")]

    ours = [node.entry for node in sort_out(entries, of_agent=False).main if node.spoken]
    assert sorted(entry["uuid"] for entry in ours if not entry.get("isMeta")) == sorted(anyio.run(main))


def test_tools_that_ran_side_by_side_keep_their_own_answers() -> None:
    answers = [call.result.text for call in read_conversation(*tap()).turns[0].calls if call.result]
    assert answers[0] == "tap.png"
    assert answers[1].startswith("File created successfully at: /home/dev/tap/tap.py")
    assert answers[2].startswith("File created successfully at: /home/dev/tap/check.py")
    assert (answers[5], answers[7].split("\n")[:2]) == ("ok", ["washer 1", "washer 2"])


def test_a_tool_that_failed_and_an_edit_and_a_picture_are_told() -> None:
    _, _, _, check, edit, _, read, *_ = read_conversation(*tap()).turns[0].calls
    assert check.result is not None
    assert check.result.is_error
    assert "AssertionError: 6" in check.result.text
    assert edit.result is not None
    assert edit.result.patch[0] == "@@ -1,3 +1,3 @@"
    assert edit.result.patch[-2:] == ("-    return turns * 3", "+    return turns * 2.5")
    assert read.result is not None
    [picture] = read.result.content
    assert isinstance(picture, Media)
    assert (picture.what, picture.media_type) == ("image", "image/png")
    assert picture.data


def test_each_answer_of_the_model_is_counted_once_though_it_stands_in_several_entries() -> None:
    entries, agents = tap()
    last = {entry["message"]["id"]: entry["message"]["usage"] for entry in entries if entry["type"] == "assistant"}
    found = read_conversation(entries, agents)
    assert found.usage.input_tokens == sum(usage["input_tokens"] for usage in last.values())
    assert found.usage.output_tokens == sum(usage["output_tokens"] for usage in last.values())
    assert sum((turn.usage for turn in found.all_turns), Usage()) == found.usage
    noted = [entry for entry in entries if entry["type"] == "cost-state"][-1]["modelUsage"]["claude-sonnet-4-5"]
    assert found.usage_with_agents.input_tokens <= noted["inputTokens"]


def test_a_subagent_stands_in_the_call_that_started_it() -> None:
    found = read_conversation(*tap())
    agent = found.turns[0].calls[-1].agent
    assert agent is not None
    assert (agent.name, agent.subpath) == ("Count washers", TAP_AGENT)
    assert prompts(agent) == ["Count the washers in the workshop and report the number."]
    assert [call.name for call in calls(agent)] == ["Bash"]
    assert agent.turns[0].steps[-1] == Text("There are three washers.")
    assert found.agents == ()
    assert found.calls == len(calls(found)) + 1


@pytest.mark.parametrize("known", [True, False], ids=["by-its-note", "by-its-id"])
def test_a_subagent_in_the_background_is_found_by_its_note_or_by_its_id(known: bool) -> None:
    entries, agents = fence()
    if not known:
        agents = {FENCE_AGENT: [entry for entry in agents[FENCE_AGENT] if entry["type"] != "agent_metadata"]}
    found = read_conversation(entries, agents)
    agent = found.turns[2].calls[0].agent
    assert agent is not None
    assert agent.turns[0].steps == (Text("The hinge is oiled."),)
    assert found.turns[3].origin == "notification"
    assert prompts(found)[3] == 'Agent "Oil the hinge" finished\n\nThe hinge is oiled.'


def test_a_worker_that_was_killed_is_told_as_an_interruption_and_as_going_on() -> None:
    found = read_conversation(*fence())
    assert [(turn.interrupted, turn.resumed) for turn in found.turns[:3]] == [
        (True, False),
        (False, True),
        (False, False),
    ]
    [call] = found.turns[0].calls
    assert call.result is not None
    assert call.result.interrupted
    assert found.turns[0].seconds == pytest.approx(0.062)  # the time in which nobody worked is not counted


def test_an_interruption_by_the_user_is_told() -> None:
    third = read_conversation(*tap()).turns[2]
    assert third.interrupted
    assert third.calls[0].result is not None
    assert third.calls[0].result.interrupted
    assert Notice("interrupted", "[Request interrupted by user for tool use]") in third.steps


def test_what_was_taken_back_is_kept_apart() -> None:
    found = read_conversation(*tap())
    assert "Paint it green." not in prompts(found)
    [branch] = found.branches
    assert branch.after_turn == 4
    assert [turn.prompt for turn in branch.turns] == [(Text("Paint it green."),)]
    assert branch.turns[0].steps == (Text("Painted green instead."),)


def test_a_compaction_hides_nothing_of_what_came_before_it() -> None:
    found = read_conversation(*tap())
    assert "The tap was mended; the factor is 2.5." in prompts(found)[5]
    assert prompts(found)[6] == "/compact"
    assert Notice("output", "Compacted") in found.turns[6].steps
    assert {(each.what, each.name) for each in found.turns[6].attachments} >= {("file", "tap.py")}


def test_cost_is_what_the_agent_command_noted_and_partial_if_a_process_died_first() -> None:
    whole, partial = read_conversation(*tap()), read_conversation(*fence())
    assert (whole.cost_usd, whole.cost_is_partial) == (pytest.approx(0.710448), False)
    assert (partial.cost_usd, partial.cost_is_partial) == (pytest.approx(0.216819), True)
    nothing = talk(said("a", None, "Hello"))
    assert (nothing.cost_usd, nothing.cost_is_partial) == (None, False)


@pytest.mark.parametrize("cost_usd", [pytest.param(10**400, id="huge"), -1, float("inf"), float("nan"), "1", None])
def test_a_cost_that_nobody_can_have_spent_is_passed_over(cost_usd: Any) -> None:
    before, after = {"type": "cost-state", "totalCostUSD": 2}, {"type": "cost-state", "totalCostUSD": cost_usd}
    assert wording.cost(talk(before, after)) == "$2.00"
    assert wording.cost(talk(after)) == "not noted"


def test_all_entries_are_counted_by_type() -> None:
    entries, agents = tap()
    found = read_conversation(entries, agents)
    assert sum(found.entries.values()) == len(entries)
    assert found.unknown == {}
    assert found.broken_links == 0
    times = [entry["timestamp"] for entry in entries if "timestamp" in entry]
    assert (found.first_at, found.last_at) == (min(times), max(times))


# --- What is odd ------------------------------------------------------------------------------------------------


def test_a_parent_that_is_not_there_is_counted_and_hides_nothing() -> None:
    found = talk(
        said("a", None, "One"), answered("b", "a", text("1")), said("d", "c", "Two"), answered("e", "d", text("2"))
    )
    assert prompts(found) == ["One", "Two"]
    assert found.broken_links == 1
    assert found.branches == ()


def test_what_is_said_after_a_rewind_to_the_beginning_is_the_conversation() -> None:
    found = talk(
        said("a", None, "One"), answered("b", "a", text("1")), said("c", None, "Two"), answered("d", "c", text("2"))
    )
    assert prompts(found) == ["Two"]
    assert [(branch.after_turn, len(branch.turns)) for branch in found.branches] == [(0, 1)]


def test_a_compaction_goes_on_from_the_point_that_it_names_not_from_what_was_taken_back() -> None:
    boundary = {"type": "system", "subtype": "compact_boundary", "uuid": "d", "parentUuid": None}
    found = talk(
        said("a", None, "One"),
        answered("b", "a", text("1")),
        said("c", "b", "Taken back"),
        {**boundary, "logicalParentUuid": "b"},
        said("e", "d", "In short: one.", isCompactSummary=True),
    )
    assert prompts(found) == ["One", "In short: one."]
    assert [branch.turns[0].prompt for branch in found.branches] == [(Text("Taken back"),)]


def test_parents_in_a_circle_end() -> None:
    found = talk(said("a", "c", "One"), said("b", "a", "Two"), said("c", "b", "Three"))
    assert prompts(found) == ["One", "Two", "Three"]


def test_entries_and_blocks_of_unknown_types_are_counted_and_shown() -> None:
    found = talk(
        said("a", None, [text("Look"), {"type": "hologram", "depth": 3}]),
        {"type": "telepathy"},
        {"type": "telepathy"},
        "not an object",
        {"uuid": "x"},
        answered("b", "a", {"type": "dance"}, 7),
    )
    assert found.unknown == {"telepathy": 2, "(no type)": 3, "hologram": 1, "dance": 1}
    assert found.turns[0].prompt == (Text("Look"), Text('{"type":"hologram","depth":3}'))
    assert found.turns[0].steps == (Text('{"type":"dance"}'), Text("7"))


def test_an_answer_to_no_call_is_shown_as_a_notice() -> None:
    found = talk(said("a", None, "Hi"), said("b", "a", [tool_result("nobody", "lost", is_error=True)]))
    assert found.turns[0].steps == (Notice("tool_result", "lost", is_error=True),)
    assert found.unknown == {"tool_result without a call": 1}


def test_a_second_answer_to_a_call_does_not_hide_the_first() -> None:
    found = talk(
        answered("a", None, tool_use("t")),
        said("b", "a", [tool_result("t", "first")]),
        said("c", "b", [tool_result("t", "second")]),
    )
    [turn] = found.turns
    assert turn.origin == "start"
    assert turn.calls[0].result is not None
    assert turn.calls[0].result.text == "first"
    assert turn.steps[1:] == (Notice("tool_result", "second"),)


def test_a_page_of_tags_that_nobody_closes_is_read_at_once() -> None:
    page = "<p>" * 50_000  # which took half a minute, when each tag was looked for up to the end
    assert prompts(talk(said("a", None, page))) == [page]
    [turn] = talk(said("a", None, f"<command-name>/x</command-name>{page}")).turns
    assert (turn.origin, turn.prompt) == ("command", (Text("/x"),))


def test_a_prompt_that_was_said_while_the_agent_was_at_work_is_shown() -> None:
    queued = {"type": "queued_command", "prompt": "Hurry up"}
    found = talk(
        said("a", None, "Work"), {"type": "attachment", "uuid": "b", "parentUuid": "a", "attachment": queued}
    )
    assert found.turns[0].steps == (Notice("prompt", "Hurry up"),)


def test_subagents_in_the_main_transcript_are_set_aside() -> None:
    found = talk(
        said("a", None, "Work"),
        said("x", None, "Sub work", isSidechain=True, agentId="7"),
        answered("y", "x", text("Sub done"), isSidechain=True, agentId="7"),
        answered("b", "a", text("Done")),
    )
    assert prompts(found) == ["Work"]
    [agent] = found.agents
    assert prompts(agent) == ["Sub work"]


def test_a_failure_of_the_api_is_an_error_and_no_going_on() -> None:
    failure = answered("b", "a", text("API Error: 529"), isApiErrorMessage=True)
    failure["message"]["model"] = "<synthetic>"
    found = talk(said("a", None, "Hi"), failure, said("c", "b", "Again"))
    assert found.turns[0].steps == (Notice("agent command", "API Error: 529", is_error=True),)
    assert found.turns[0].models == ()
    assert not found.turns[1].resumed


def test_a_call_without_an_answer_has_none() -> None:
    found = talk(said("a", None, "Hi"), answered("b", "a", tool_use("t", command="ls")))
    assert (found.turns[0].calls[0].result, found.turns[0].calls[0].at) == (None, None)


def test_an_entry_without_a_uuid_follows_what_stands_before_it() -> None:
    bare = {"type": "assistant", "message": {"content": "plain words"}}
    found = talk(said("a", None, "Hi"), bare)
    assert found.turns[0].steps == (Text("plain words"),)


def test_nothing_is_an_empty_conversation() -> None:
    assert talk() == Conversation()


def test_subagents_that_call_each_other_in_a_circle_are_each_shown_once() -> None:
    def sub(own: str, calls_for: str) -> list[Any]:
        return [
            {"type": "agent_metadata", "toolUseId": own},
            said(f"{own}-1", None, own, isSidechain=True),
            answered(f"{own}-2", f"{own}-1", tool_use(calls_for, "Agent"), isSidechain=True),
        ]

    found = talk(
        answered("a", None, tool_use("t1", "Agent")),
        agents={"subagents/agent-1": sub("t1", "t2"), "subagents/agent-2": sub("t2", "t1")},
    )
    assert [agent.subpath for agent in found.all_agents] == ["subagents/agent-1", "subagents/agent-2"]


def test_a_conversation_becomes_json_and_loses_nothing_that_was_said() -> None:
    shown = json.dumps(as_data(read_conversation(*tap())))
    for words in ("Mend the leaking tap", "There are three washers", "Painted green instead", "AssertionError"):
        assert words in shown


# --- Claims -----------------------------------------------------------------------------------------------------


def parts_of_two_claims() -> list[Any]:
    written: list[tuple[int, list[Any], int, Any]] = [
        (1, [], 1, "fence"),
        (2, [said("a", None, "One"), answered("b", "a", text("1"))], 1, "data"),
        (3, [], 2, "fence"),
        (4, [said("c", "b", "Two")], 2, "data"),
    ]
    return [
        decode(
            encode_part(seq, entries, epoch=epoch, writer="w", write_id=f"{seq:016x}", kind=kind)[1], Span(seq, seq)
        )
        for seq, entries, epoch, kind in written
    ]


@pytest.mark.parametrize("compacted", [False, True])
def test_claims_are_told_where_they_were_taken(compacted: bool) -> None:
    parts = parts_of_two_claims()
    if compacted:
        parts = [decode(encode_segment(parts, writer="w", write_id="f" * 16), Span(1, 4, segment=True))]
    log = Log("x", tuple(parts), 1, 4, 2)
    assert claims_in(log) == [Taken(1, 0), Taken(2, 2)]
    found = read_conversation(log.entries(), claims=claims_in(log))
    assert [(turn.claim, turn.resumed) for turn in found.turns] == [(1, False), (2, True)]


def test_segments_that_overlap_tell_of_a_claim_once() -> None:
    parts = parts_of_two_claims()
    segments = [
        decode(encode_segment(parts[:3], writer="w", write_id="e" * 16), Span(1, 3, segment=True)),
        decode(encode_segment(parts[1:], writer="w", write_id="f" * 16), Span(2, 4, segment=True)),
    ]
    log = Log("x", tuple(segments), 1, 4, 2)
    assert claims_in(log) == [Taken(1, 0), Taken(2, 2)]


def test_the_transcript_is_untouched_by_reading() -> None:
    entries, agents = tap()
    before = encode([entries, agents]).lines
    read_conversation(entries, agents)
    assert encode([entries, agents]).lines == before
