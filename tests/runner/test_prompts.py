"""The full prompt for who begins, the delta prompt for who goes on: as text, as a file, or as a function."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from everturn import Invalid, SessionRecord
from everturn.model import Holder
from everturn.runner.request import Prompt
from everturn.testing import InstantAgent
from polling import WAIT_S
from runner.stage import DELTA, PROMPT, UNDER_TRIO, WORK, Desk, finish

Make = Callable[[str, Path], Prompt]


def as_file(text: str, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / f"{len(text)}.md"
    file.write_text(text, encoding="utf-8")
    return file


def as_coroutine(text: str, _: Path) -> Prompt:
    async def say(_: SessionRecord | None) -> str:
        await anyio.lowlevel.checkpoint()
        return text

    return say


WAYS: dict[str, Make] = {
    "text": lambda text, _: text,
    "file": as_file,
    "function": lambda text, _: lambda _: text,
    "async function": as_coroutine,
}


@pytest.mark.slow
@pytest.mark.parametrize("make", WAYS.values(), ids=WAYS.keys())
def test_the_full_prompt_is_for_who_begins_and_the_delta_prompt_for_who_goes_on(
    desk: Desk, tmp_path: Path, make: Make
) -> None:
    given = {"prompt": make("Mend it, größer 🚰.", tmp_path), "resume_prompt": make(DELTA, tmp_path)}
    runs = [desk.run(**given) for _ in range(3)]
    for run in runs:
        finish(run)
    assert [run.resumed for run in runs] == [False, True, True]
    assert desk.agent.prompts == ["Mend it, größer 🚰.", DELTA, DELTA]


@UNDER_TRIO
def test_an_async_function_is_asked_under_trio_too(desk: Desk, tmp_path: Path) -> None:
    finish(desk.run(prompt=as_coroutine(PROMPT, tmp_path)), backend="trio")
    assert desk.agent.prompts == [PROMPT]


@pytest.mark.slow
def test_without_a_delta_prompt_the_prompt_is_said_again(desk: Desk) -> None:
    for _ in range(2):
        finish(desk.run(resume_prompt=None))
    assert desk.agent.prompts == [PROMPT, PROMPT]


def test_a_file_is_read_when_the_run_needs_it(desk: Desk, tmp_path: Path) -> None:
    file = as_file(PROMPT, tmp_path)
    run = desk.run(prompt=file)
    file.write_text("Mend both taps.")
    finish(run)
    assert desk.agent.prompts == ["Mend both taps."]


# --- What a function is told --------------------------------------------------------------------------------------


class Asked:
    """A prompt that notes what it is told."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.told: list[SessionRecord | None] = []
        self.threads: list[threading.Thread] = []

    def __call__(self, record: SessionRecord | None) -> str:
        self.told.append(record)
        self.threads.append(threading.current_thread())
        return self.text


@pytest.mark.slow
def test_a_function_is_told_what_the_registry_knew_before_this_run(desk: Desk) -> None:
    full, delta = Asked(PROMPT), Asked(DELTA)
    first = desk.run(prompt=full, resume_prompt=delta, runtime=desk.runtime(worker="w1"))
    finish(first)
    between = desk.record()
    finish(desk.run(prompt=full, resume_prompt=delta, runtime=desk.runtime(worker="w2")))
    assert full.told == [None]
    assert delta.told == [between]
    assert (between.session_id, between.worker, between.cwd) == (first.session_id, "w1", str(desk.work))
    assert between.last_used_at > between.created_at


def test_a_function_may_block_as_it_is_not_asked_in_the_event_loop(desk: Desk) -> None:
    full = Asked(PROMPT)
    finish(desk.run(prompt=full))
    assert full.threads != [threading.current_thread()]


@pytest.mark.slow
def test_a_takeover_after_a_crash_counts_as_a_resume(desk: Desk) -> None:
    first = desk.run()
    finish(first)
    crashed = desk.registry_of(hours_ago=1)
    crashed.confirm(crashed.claim(WORK, Holder("crashed"), desk.store.as_uri(), ttl_s=30), str(desk.work))
    full, delta = Asked(PROMPT), Asked(DELTA)
    run = desk.run(prompt=full, resume_prompt=delta)
    finish(run)
    assert (run.resumed, run.session_id, run.epoch) == (True, first.session_id, 3)
    assert full.told == []
    [record] = delta.told
    assert record is not None
    assert (record.worker, record.held_until is None) == ("crashed", False)
    assert desk.agent.prompts == [PROMPT, DELTA]


def test_after_a_crash_before_anything_was_said_the_full_prompt_is_sent(desk: Desk) -> None:
    desk.registry_of(hours_ago=1).claim(WORK, Holder("crashed"), desk.store.as_uri(), ttl_s=30)
    run = desk.run()
    finish(run)
    assert (run.resumed, run.warnings) == (False, ())
    assert desk.agent.prompts == [PROMPT]


def test_a_session_that_is_too_old_is_not_told_of(desk: Desk) -> None:
    desk.use(hours_ago=25)
    full = Asked(PROMPT)
    finish(desk.run(prompt=full))
    assert full.told == [None]


@pytest.mark.slow
def test_who_begins_anew_is_told_of_the_session_that_was_lost(desk: Desk, tmp_path: Path) -> None:
    finish(desk.run())
    lost = desk.record()
    full, delta = Asked(PROMPT), Asked(DELTA)
    agent = InstantAgent(tmp_path / "losing", loses_resumed="streaming")
    finish(desk.run(prompt=full, resume_prompt=delta, agent=agent))
    assert delta.told == full.told == [lost]
    assert agent.prompts == [DELTA, PROMPT]


# --- What cannot be said ------------------------------------------------------------------------------------------


def fails(_: SessionRecord | None) -> str:
    raise LookupError("no such issue")


UNUSABLE: dict[str, tuple[Any, type[Exception], str]] = {
    "nothing": (lambda _: "", Invalid, "the prompt is empty"),
    "blanks": (lambda _: " \n", Invalid, "the prompt is empty"),
    "None": (lambda _: None, Invalid, "the prompt is NoneType, not text"),
    "bytes": (lambda _: b"Mend it.", Invalid, "the prompt is bytes, not text"),
    "error": (fails, LookupError, "no such issue"),
}


@pytest.mark.parametrize(("prompt", "error", "said"), UNUSABLE.values(), ids=UNUSABLE.keys())
@pytest.mark.parametrize("backend", ["asyncio", pytest.param("trio", marks=pytest.mark.slow)])
def test_what_cannot_be_said_ends_the_run_without_an_agent_and_frees_the_claim(
    desk: Desk, prompt: Any, error: type[Exception], said: str, backend: str
) -> None:
    with pytest.raises(error, match=said):
        finish(desk.run(prompt=prompt), backend)
    assert desk.agent.starts == []
    assert desk.record().held_until is None
    run = desk.run()
    finish(run)
    assert (run.resumed, run.warnings) == (False, ())


@pytest.mark.slow
def test_a_delta_that_cannot_be_said_leaves_the_conversation_as_it_was(desk: Desk) -> None:
    first = desk.run()
    finish(first)
    with pytest.raises(Invalid, match="the resume prompt is empty"):
        finish(desk.run(resume_prompt=lambda _: ""))
    run = desk.run()
    finish(run)
    assert (run.resumed, run.session_id) == (True, first.session_id)
    assert desk.agent.prompts == [PROMPT, DELTA]


def test_a_file_that_goes_away_before_it_is_needed_ends_the_run(desk: Desk, tmp_path: Path) -> None:
    file = as_file(PROMPT, tmp_path)
    run = desk.run(prompt=file)
    file.unlink()
    with pytest.raises(Invalid, match="the prompt cannot be read"):
        finish(run)
    assert desk.agent.starts == []
    assert desk.record().held_until is None


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe\xfa"], ids=["empty", "blank", "not UTF-8"])
def test_a_file_that_cannot_be_said_is_refused_at_once(desk: Desk, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "prompt.md"
    file.write_bytes(content)
    with pytest.raises(Invalid, match=r"prompt is empty|prompt cannot be read"):
        desk.run(resume_prompt=file)
    assert not desk.registry_file.exists()


@pytest.mark.parametrize("name", ["prompt", "resume_prompt"])
def test_what_is_no_prompt_is_refused_at_once(desk: Desk, name: str) -> None:
    with pytest.raises(Invalid, match="prompt is int"):
        desk.run(**{name: 7})
    with pytest.raises(Invalid, match="prompt is NoneType"):
        desk.run(prompt=None)
    assert not desk.registry_file.exists()


def test_a_run_that_is_stopped_does_not_wait_for_a_function(desk: Desk) -> None:
    asked, go = threading.Event(), threading.Event()

    def slow(_: SessionRecord | None) -> str:
        asked.set()
        go.wait(WAIT_S)
        return PROMPT

    run = desk.run(prompt=slow)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, lambda: asked.wait(WAIT_S) and run.stop())
            with anyio.fail_after(WAIT_S / 2):
                assert [message async for message in run] == []
        assert not go.is_set()
        go.set()

    anyio.run(main)
    assert run.stopped == "stopped"
    assert desk.agent.starts == []
    assert desk.record().held_until is None
