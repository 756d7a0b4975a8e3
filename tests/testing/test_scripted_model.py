"""The scripted model speaks the Messages API and keeps to its script."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from everturn.testing.model import (
    Disconnect,
    Failure,
    ModelRequest,
    Reply,
    ScriptedModel,
    Text,
    Thinking,
    ToolUse,
)
from model_client import WAIT_S, served

if TYPE_CHECKING:
    from collections.abc import Iterator

BASH = {"name": "Bash", "input_schema": {"type": "object"}}


def ask(*messages: dict[str, Any] | str, **fields: Any) -> dict[str, Any]:
    """Return the body of a main request; a string stands for a message of the user."""
    said = [{"role": "user", "content": item} if isinstance(item, str) else item for item in messages]
    return {"model": "m", "max_tokens": 100, "tools": [BASH], "messages": said or [ask_hi()], **fields}


def ask_hi() -> dict[str, Any]:
    return {"role": "user", "content": "hi"}


def post(client: httpx2.Client, body: dict[str, Any] | None = None, path: str = "/v1/messages") -> httpx2.Response:
    return client.post(path, json=ask() if body is None else body)


def events_of(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the `(name, data)` of server-sent events as they come."""
    name = ""
    for line in lines:
        key, _, value = line.partition(": ")
        if key == "event":
            name = value
        elif key == "data":
            yield name, json.loads(value)


def stream(client: httpx2.Client, body: dict[str, Any] | None = None) -> list[tuple[str, dict[str, Any]]]:
    with client.stream("POST", "/v1/messages", json={**(body or ask()), "stream": True}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return list(events_of(response.iter_lines()))


def deltas(events: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    return [data["delta"] for name, data in events if name == "content_block_delta"]


def error_of(response: httpx2.Response) -> tuple[int, str, str]:
    body = response.json()
    assert body["type"] == "error"
    return response.status_code, body["error"]["type"], body["error"]["message"]


def test_a_streamed_message_opens_fills_and_closes_each_block_in_order() -> None:
    with served(ScriptedModel([Reply("one two", ToolUse("Bash", {}))])) as client:
        events = stream(client)
    assert [name for name, _ in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert all(data["type"] == name for name, data in events)
    assert [data["index"] for name, data in events if "block" in name] == [0, 0, 0, 0, 1, 1, 1]


def test_a_streamed_message_starts_empty_and_ends_with_its_stop_reason_and_usage() -> None:
    with served(ScriptedModel([Reply("done")])) as client:
        events = stream(client, ask(model="some-model"))
    start = events[0][1]["message"]
    assert (start["model"], start["role"], start["content"], start["stop_reason"]) == (
        "some-model",
        "assistant",
        [],
        None,
    )
    assert start["usage"]["input_tokens"] > 0
    assert events[-2][1]["delta"]["stop_reason"] == "end_turn"
    assert events[-2][1]["usage"]["output_tokens"] > 0


@pytest.mark.parametrize(
    ("block", "pieces"),
    [
        (Text("  one two\n\nthree "), ["  ", "one ", "two\n\n", "three "]),
        (Text("abcdefg", chunks=3), ["ab", "cd", "efg"]),
        (Text("é🙂 x", chunks=1), ["é🙂 x"]),
    ],
)
def test_text_is_streamed_word_by_word_or_in_as_many_chunks_as_asked(block: Text, pieces: list[str]) -> None:
    with served(ScriptedModel([Reply(block)])) as client:
        assert [delta["text"] for delta in deltas(stream(client))] == pieces


def test_the_input_of_a_tool_call_is_streamed_as_pieces_of_json() -> None:
    arguments = {"command": "echo " + "x" * 100, "deep": {"list": [1, None, "ü"]}}
    with served(ScriptedModel([Reply(ToolUse("Bash", arguments, id="toolu_mine"))])) as client:
        events = stream(client)
    opening = events[1][1]["content_block"]
    pieces = [delta["partial_json"] for delta in deltas(events)]
    assert opening == {"type": "tool_use", "id": "toolu_mine", "name": "Bash", "input": {}}
    assert len(pieces) > 1
    assert json.loads("".join(pieces)) == arguments
    assert events[-2][1]["delta"]["stop_reason"] == "tool_use"


def test_thinking_is_streamed_before_its_signature() -> None:
    with served(ScriptedModel([Reply(Thinking("a b", signature="s"), "c")])) as client:
        said = deltas(stream(client))
    assert said == [
        {"type": "thinking_delta", "thinking": "a "},
        {"type": "thinking_delta", "thinking": "b"},
        {"type": "signature_delta", "signature": "s"},
        {"type": "text_delta", "text": "c"},
    ]


def test_a_request_that_does_not_stream_gets_the_whole_message() -> None:
    reply = Reply(Thinking("hm", "s"), "look", ToolUse("Bash", {"a": 1}), stop_reason="max_tokens")
    with served(ScriptedModel([reply])) as client:
        message = post(client).json()
    call_id = message["content"][2]["id"]
    assert message["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "look"},
        {"type": "tool_use", "id": call_id, "name": "Bash", "input": {"a": 1}},
    ]
    assert call_id.startswith("toolu_")
    assert message["stop_reason"] == "max_tokens"
    assert set(message["usage"]) >= {"input_tokens", "output_tokens"}


def test_the_same_script_gives_the_same_ids_and_no_id_twice() -> None:
    def ids() -> list[str]:
        found = []
        with served(ScriptedModel(lambda _: Reply(ToolUse("Bash", {}), ToolUse("Bash", {})))) as client:
            for _ in range(2):
                message = post(client).json()
                found += [message["id"], *(block["id"] for block in message["content"])]
        return found

    first = ids()
    assert first == ids()
    assert len(set(first)) == 6


def test_a_second_model_gives_a_longer_conversation_ids_of_its_own() -> None:
    script = [Reply(ToolUse("Bash", {}))]
    with served(ScriptedModel(script)) as client:
        before = post(client, ask("a")).json()
    with served(ScriptedModel(script)) as client:
        after = post(client, ask("a", {"role": "assistant", "content": "b"}, "c")).json()
    assert before["id"] != after["id"]
    assert before["content"][0]["id"] != after["content"][0]["id"]


def test_usage_grows_with_what_is_said() -> None:
    with served(ScriptedModel([Reply("x"), Reply("x" * 4000)])) as client:
        short, long = (post(client, ask("y" * size)).json()["usage"] for size in (1, 4000))
    assert long["input_tokens"] >= short["input_tokens"] + 900
    assert long["output_tokens"] >= short["output_tokens"] + 900


def test_a_failure_is_an_error_in_the_shape_of_the_api() -> None:
    with served(ScriptedModel([Failure(), Failure(429, "rate_limit_error", "slow", 1.5), Reply("ok")])) as client:
        overloaded, limited, fine = (post(client) for _ in range(3))
    assert error_of(overloaded) == (529, "overloaded_error", "scripted failure")
    assert "retry-after" not in overloaded.headers
    assert error_of(limited) == (429, "rate_limit_error", "slow")
    assert limited.headers["retry-after"] == "1.5"
    assert fine.status_code == 200


@pytest.mark.parametrize("chunks", [0, 2, 4])
def test_a_disconnect_cuts_the_stream_after_its_chunks(chunks: int) -> None:
    model = ScriptedModel([Disconnect(Reply("one two three four"), after_chunks=chunks), Reply("again")])
    with served(model) as client:
        with client.stream("POST", "/v1/messages", json=ask(stream=True)) as response:
            events = events_of(response.iter_lines())
            names = [next(events)[0] for _ in range(1 + bool(chunks) + chunks)]
            with pytest.raises(httpx2.RemoteProtocolError):
                next(events)
        assert names.count("content_block_delta") == chunks
        assert post(client).status_code == 200


def test_a_disconnect_cuts_a_request_that_does_not_stream_before_its_body() -> None:
    with (
        served(ScriptedModel([Disconnect(Reply("lost"))])) as client,
        pytest.raises(httpx2.RemoteProtocolError),
    ):
        post(client)


@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_stalled_stream_is_silent_until_it_is_released(place: int) -> None:
    model = ScriptedModel([Reply("one two three four", stall_after_chunks=place)])
    with served(model) as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(stream, client)
        model.wait_until_streamed(1, place, WAIT_S)
        with pytest.raises(TimeoutError, match=f"for {place + 1} chunks: request 1 was sent {place} chunks"):
            model.wait_until_streamed(1, place + 1, 0.05)
        model.release()
        assert "".join(delta["text"] for delta in deltas(answer.result(WAIT_S))) == "one two three four"


def test_a_reader_has_what_was_streamed_before_the_stall() -> None:
    model = ScriptedModel([Reply("one two three", stall_after_chunks=2)])
    with served(model) as client, client.stream("POST", "/v1/messages", json=ask(stream=True)) as response:
        events = events_of(response.iter_lines())
        heard = [next(events) for _ in range(4)]
        assert [delta["text"] for delta in deltas(heard)] == ["one ", "two "]
        model.wait_until_streamed(1, 2, WAIT_S)  # heard is not yet stalled
        model.release()
        assert [delta["text"] for delta in deltas(list(events))] == ["three"]


def test_a_stall_holds_back_a_whole_message_too() -> None:
    model = ScriptedModel([Reply("one two", stall_after_chunks=2)])
    with served(model) as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, client)
        model.wait_until_streamed(1, 0, WAIT_S)
        assert not answer.done()
        model.release()
        assert answer.result(WAIT_S).json()["content"][0]["text"] == "one two"
        model.wait_until_streamed(1, 2, WAIT_S)


def test_one_of_several_stalls_can_be_released() -> None:
    model = ScriptedModel(lambda _: Reply("a b", stall_after_chunks=1))
    with served(model) as client, ThreadPoolExecutor(2) as pool:
        first = pool.submit(stream, client)
        model.wait_until_streamed(1, 1, WAIT_S)
        second = pool.submit(stream, client)
        model.wait_until_streamed(2, 1, WAIT_S)
        model.release(2)
        second.result(WAIT_S)
        assert not first.done()
        model.release()
        first.result(WAIT_S)


def test_a_stall_can_be_released_before_it_comes() -> None:
    model = ScriptedModel([Reply("a b", stall_after_chunks=1)])
    model.release(1)
    with served(model) as client:
        assert len(deltas(stream(client))) == 2


def test_a_client_that_leaves_a_stall_leaves_the_model_free() -> None:
    model = ScriptedModel([Reply("a b", stall_after_chunks=1), Reply("next")])
    with served(model) as client:
        with client.stream("POST", "/v1/messages", json=ask(stream=True)):
            model.wait_until_streamed(1, 1, WAIT_S)
        assert post(client).json()["content"][0]["text"] == "next"
        with pytest.raises(TimeoutError):
            model.wait_until_streamed(1, 2, 0.05)


@pytest.mark.slow
def test_replies_come_no_sooner_than_their_delays() -> None:
    model = ScriptedModel([Reply("a", delay_s=0.1), Reply("a b c", chunk_delay_s=0.05)])
    with served(model) as client:
        for least_s in (0.1, 0.15):
            before_s = time.monotonic()
            stream(client)
            assert time.monotonic() - before_s >= least_s


def test_a_used_up_script_refuses_and_remembers() -> None:
    model = ScriptedModel([Reply("only")])
    with served(model) as client:
        post(client)
        refused = post(client, ask("one too many"))
    status, kind, message = error_of(refused)
    assert (status, kind) == (400, "invalid_request_error")
    assert message == "the script has no reply left for request 2: it ends after 1"
    assert [request.last_user_text() for request in model.overruns] == ["one too many"]
    assert [request.index for request in model.requests] == [1, 2]


def test_a_script_can_be_a_function_of_the_request() -> None:
    def echo(request: ModelRequest) -> Reply | Failure:
        return Failure(500, "api_error") if request.index == 2 else Reply(request.last_user_text().upper())

    with served(ScriptedModel(echo)) as client:
        answers = [post(client, ask(word)) for word in ("a", "b", "c")]
    assert [answer.status_code for answer in answers] == [200, 500, 200]
    assert answers[2].json()["content"][0]["text"] == "C"


@pytest.mark.parametrize("returned", [None, "text"])
def test_a_function_that_fails_refuses_and_its_error_is_kept(returned: object) -> None:
    def script(_: ModelRequest) -> Any:
        if returned is None:
            raise KeyError("lost")
        return returned

    model = ScriptedModel(script)
    with served(model) as client:
        status, _, message = error_of(post(client))
    [error] = model.script_errors
    assert status == 400
    assert repr(error) in message
    assert isinstance(error, KeyError if returned is None else TypeError)
    assert model.overruns == []


@pytest.mark.parametrize(
    "body",
    [
        ask(tools=[]),
        ask(max_tokens=1),
        ask(tools=[{"type": "web_search_20250305", "name": "web_search"}]),
    ],
    ids=["no tools", "one token", "only tools the server runs"],
)
@pytest.mark.parametrize("streaming", [True, False])
def test_side_requests_leave_the_script_alone(body: dict[str, Any], streaming: bool) -> None:
    model = ScriptedModel([Reply("main")], side_reply="aside")
    with served(model) as client:
        if streaming:
            assert deltas(stream(client, body)) == [{"type": "text_delta", "text": "aside"}]
        else:
            assert post(client, body).json()["content"] == [{"type": "text", "text": "aside"}]
        assert post(client).json()["content"][0]["text"] == "main"
    assert [(request.main, request.index) for request in model.side_requests + model.requests] == [
        (False, 1),
        (True, 1),
    ]


def test_a_conversation_without_tools_is_still_main() -> None:
    model = ScriptedModel([Reply("main")])
    with served(model) as client:
        post(client, ask(tools=[], context_management={"edits": []}))
    assert len(model.requests) == 1


def test_tokens_are_counted_without_touching_the_script() -> None:
    model = ScriptedModel([])
    with served(model) as client:
        short, long = (
            post(client, ask("x" * size), "/v1/messages/count_tokens").json()["input_tokens"] for size in (1, 4000)
        )
        assert error_of(client.post("/v1/messages/count_tokens", content=b"["))[0] == 400
    assert 0 < short < long - 900
    assert (model.requests, len(model.side_requests)) == ([], 2)


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", "/v1/models", b"", (404, "not_found_error")),
        ("GET", "/v1/messages", b"", (405, "invalid_request_error")),
        ("POST", "/v1/messages", b'{"model": ', (400, "invalid_request_error")),
        ("POST", "/v1/messages", b"\xff", (400, "invalid_request_error")),
        ("POST", "/v1/messages", b"[]", (400, "invalid_request_error")),
        ("POST", "/v1/messages", b'{"messages": []}', (400, "invalid_request_error")),
        ("POST", "/v1/messages", b'{"model": "m", "messages": "hi"}', (400, "invalid_request_error")),
        ("POST", "/v1/messages", b'{"model": "m", "messages": ["hi"]}', (400, "invalid_request_error")),
    ],
)
def test_what_is_no_request_is_refused_and_costs_nothing(
    method: str, path: str, body: bytes, expected: tuple[int, str]
) -> None:
    model = ScriptedModel([])
    with served(model) as client:
        assert error_of(client.request(method, path, content=body))[:2] == expected
        assert client.head("/").status_code == 404
    assert model.requests == model.side_requests == []


def test_a_request_tells_what_was_said_called_and_answered() -> None:
    conversation: list[dict[str, Any]] = [
        {"role": "user", "content": "start"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "looking"},
                {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls"}},
                {"type": "tool_use", "id": "t2", "name": "Read", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "a.txt"},
                {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "b"}]},
                {"type": "tool_result", "tool_use_id": "t3"},
                {"type": "text", "text": "go"},
                {"type": "text", "text": "on"},
            ],
        },
        {"role": "system", "content": [{"type": "text", "text": "aside"}]},
    ]
    model = ScriptedModel([Reply("ok"), Reply("ok")])
    before_s = time.monotonic()
    with served(model) as client:
        stream(client, ask(*conversation, system=[{"type": "text", "text": "be brief"}]))
        post(client, ask({"role": "assistant", "content": "alone"}, system="be long"))
    full, bare = model.requests
    assert full.messages == conversation
    assert full.last_user_text() == "go\non"
    assert full.texts() == ["start", "looking", "go", "on", "aside"]
    assert full.tool_uses() == [("t1", "Bash", {"command": "ls"}), ("t2", "Read", {})]
    assert full.tool_results() == [("t1", "a.txt"), ("t2", "b"), ("t3", "")]
    assert full.system_text() == "be brief"
    assert (full.index, full.main, full.streaming) == (1, True, True)
    assert before_s <= full.at_s <= bare.at_s <= time.monotonic()
    assert (bare.last_user_text(), bare.system_text(), bare.streaming) == ("", "be long", False)


def test_waiting_for_requests_returns_them_or_says_how_many_came() -> None:
    model = ScriptedModel([Reply("ok")])
    with served(model) as client:
        with pytest.raises(TimeoutError, match="0 of 1 requests"):
            model.wait_for_requests(1, 0.01)
        with pytest.raises(TimeoutError, match="request 1 has not been answered yet"):
            model.wait_until_streamed(1, 0, 0.01)
        post(client)
        assert [request.index for request in model.wait_for_requests(1, WAIT_S)] == [1]


def test_many_clients_at_once_are_each_answered_once() -> None:
    model = ScriptedModel([Reply(str(place)) for place in range(40)])
    with served(model) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(client).json()["content"][0]["text"], range(40)))
    assert sorted(answers, key=int) == [str(place) for place in range(40)]
    assert [request.index for request in model.requests] == list(range(1, 41))
