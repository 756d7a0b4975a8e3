"""A scripted model is served, stopped and served again; scripts and environments are values that are checked."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from everturn.testing.model import (
    Disconnect,
    Failure,
    Reply,
    ScriptedModel,
    Text,
    Thinking,
    ToolUse,
    cli_environment,
)
from model_client import NO_TLS, WAIT_S, served
from polling import wait_until

if TYPE_CHECKING:
    from pathlib import Path

ASK = {
    "model": "m",
    "max_tokens": 100,
    "tools": [{"name": "Bash", "input_schema": {"type": "object"}}],
    "messages": [{"role": "user", "content": "hi"}],
}


@pytest.mark.parametrize(
    ("reply", "streaming"),
    [
        (Reply("a b", stall_after_chunks=1), True),
        (Reply("a b", stall_after_chunks=1), False),
        (Reply("a", delay_s=900), True),
        (Reply("a", delay_s=900), False),
        (Reply("a b", chunk_delay_s=900), True),
    ],
)
def test_leaving_the_block_ends_whatever_is_still_open(reply: Reply, streaming: bool) -> None:
    model = ScriptedModel([reply])
    with httpx2.Client(timeout=WAIT_S, trust_env=False, verify=NO_TLS) as client, ThreadPoolExecutor(1) as pool:
        with model.serve() as url:
            answer = pool.submit(client.post, f"{url}/v1/messages", json={**ASK, "stream": streaming})
            model.wait_for_requests(1, WAIT_S)
            left_s = time.monotonic()
        assert time.monotonic() - left_s < 5
        with pytest.raises(httpx2.RemoteProtocolError):
            answer.result(WAIT_S)
    assert "everturn-scripted-model" not in {thread.name for thread in threading.enumerate()}


def test_a_model_has_an_address_only_while_it_is_served() -> None:
    model = ScriptedModel([])
    with pytest.raises(RuntimeError, match="not being served"):
        _ = model.url
    with model.serve() as url:
        assert model.url == url
        assert url.startswith("http://127.0.0.1:")
        with pytest.raises(RuntimeError, match="already served"), model.serve():
            pass
    with pytest.raises(RuntimeError, match="not being served"):
        _ = model.url


def test_a_model_can_come_back_on_its_port_and_goes_on_in_its_script() -> None:
    model = ScriptedModel([Reply("one"), Reply("two")])
    with served(model) as client:
        port = int(model.url.rpartition(":")[2])
        client.post("/v1/messages", json=ASK)
    with model.serve(port) as url:
        answer = httpx2.post(f"{url}/v1/messages", json=ASK, trust_env=False, verify=NO_TLS)
    assert answer.json()["content"][0]["text"] == "two"


def test_a_reply_is_open_until_it_is_said_or_nobody_listens() -> None:
    stalling = Reply("a b", stall_after_chunks=1)
    model = ScriptedModel([stalling, stalling])
    with served(model) as client:
        for number in (1, 2):
            with client.stream("POST", "/v1/messages", json={**ASK, "stream": True}) as answer:
                model.wait_until_streamed(number, 1, WAIT_S)
                assert model.open_replies == 1
                if number == 1:
                    model.release()
                    answer.read()
            wait_until(lambda: model.open_replies == 0, "the reply has ended")


def test_a_taken_port_is_an_error_at_once() -> None:
    with ScriptedModel([]).serve() as url:
        other = ScriptedModel([])
        with pytest.raises(OSError, match="in use"), other.serve(int(url.rpartition(":")[2])):
            pass
        with other.serve():
            pass


def test_serving_leaves_signals_and_logs_alone(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    caplog.set_level(logging.WARNING)
    with served(ScriptedModel([Disconnect(Reply("x"))])) as client:
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
        with pytest.raises(httpx2.RemoteProtocolError):
            client.post("/v1/messages", json=ASK)
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as killed:
            killed.sendall(b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Text(""),
        lambda: Text("ab", chunks=0),
        lambda: Text("ab", chunks=3),
        lambda: Thinking(""),
        Reply,
        lambda: Reply("a", delay_s=-1),
        lambda: Reply("a", chunk_delay_s=-1),
        lambda: Reply("a b", stall_after_chunks=3),
        lambda: Reply("a b", stall_after_chunks=-1),
        lambda: Disconnect(Reply("a b"), after_chunks=3),
        lambda: Failure(200),
    ],
)
def test_a_script_that_cannot_be_played_is_refused_when_it_is_written(make: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        make()


def test_a_script_holds_only_steps() -> None:
    with pytest.raises(TypeError, match="not 'hello'"):
        ScriptedModel(["hello"])  # type: ignore[list-item]


def test_replies_are_values() -> None:
    assert Reply("a b") == Reply(Text("a b"))
    assert Reply("a b", ToolUse("Bash", {})).chunk_count == 3
    with pytest.raises(AttributeError):
        Reply("a").delay_s = 1.0  # type: ignore[misc]


def test_the_environment_of_the_command_is_whole_and_owes_nothing_to_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a real one")
    monkeypatch.setenv("PATH", "/somewhere")
    environment = cli_environment("http://127.0.0.1:1", tmp_path)
    assert environment["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:1"
    assert environment["ANTHROPIC_API_KEY"] == "scripted"
    assert environment["HOME"] == str(tmp_path)
    assert environment["PATH"] == "/usr/local/bin:/usr/bin:/bin"
    assert "TMPDIR" not in environment
    changed = cli_environment("http://127.0.0.1:1", tmp_path, path="/bin", tmpdir=tmp_path / "t")
    assert (changed["PATH"], changed["TMPDIR"]) == ("/bin", str(tmp_path / "t"))
