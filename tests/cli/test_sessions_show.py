"""`everturn sessions show`: a conversation as a person or a program reads it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from cli.console import Done
from everturn.cli.app import _run
from everturn.cli.printer import Printer
from everturn.conversations.reading import read_conversation
from recorded import SESSION, TAP_AGENT, answered, fence, keep, said, tap, text, tool_result, tool_use

HOSTILE = "\x1b[31mred\x1b]0;owned\x07\x1b[2J\x9b1m\x08\r\u202e[bold]not markup[/bold]\ud800"


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Done]:
    """The command, on the store in this test's folder."""

    def call(*arguments: str) -> Done:
        code = _run(["sessions", "show", "--store", (tmp_path / "store").as_uri(), *arguments])
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return call


@pytest.fixture(scope="module")
def mended(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The recorded session in a store, put there once."""
    return keep(tmp_path_factory.mktemp("tap") / "store", *tap())


def test_a_session_is_shown_turn_by_turn_with_what_it_comes_to(show: Callable[..., Done], mended: str) -> None:
    done = show(SESSION[:6], "--store", mended)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[:2] == [SESSION, "tap · claude-sonnet-4-5"]
    heads = [line for line in lines if re.match(r"\d ", line)]
    assert [re.sub(r" +\d.*", "", head[2:]) for head in heads] == [
        "prompt",
        "prompt",
        "prompt, interrupted",
        "prompt, resumed",
        "prompt",
        "compaction",
        "command",
        "prompt",
    ]
    assert heads[0].startswith("1 prompt  2026-11-20 12:28:16 · 0.8 s · 107k in · 495 out ─")
    for words in (
        "▌ Mend the leaking tap in `tap.py`, please.",
        "  ▸ Bash ls -l | tail -n +2 | awk '{print $NF}'",
        "  ✗ Bash python3 check.py",
        "    … 2 more lines",
        "    -    return turns * 3",
        "    +    return turns * 2.5",
        "    [image image/png, 729 bytes]",
        "  ◆ Agent Count washers",
        "    0.1 s · 1 tool call · 24.8k in · 43 out",
        "   1 wrote flow() in tap.py",
        "  See the manual (https://taps.example/manual) for more.",
        "  · interrupted [Request interrupted by user for tool use]",
        "turns       8",
        "tool calls  11, those of 1 subagent too",
        "tokens      231k in · 658 out",
        "cost        $0.71",
        "time        2026-11-20 12:28:16 to 12:28:21 UTC, 5.3 s",
        "taken back  1 branch",
    ):
        assert words in lines
    assert re.search(r"\nstored +21 parts, \d+\.\d kB\nin +file://", done.out)
    assert "washer 6" not in done.out
    assert "Paint it green" not in done.out
    assert "I'll count." not in done.out


def test_what_goes_to_a_file_holds_no_control_sequences_and_no_spaces_at_the_end(
    show: Callable[..., Done], mended: str
) -> None:
    out = show(SESSION, "--store", mended, "--all", "--full", "--subagents").out
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", out)
    assert [line for line in out.splitlines() if line != line.rstrip() and not line.startswith("stored")] == []
    assert "\n\n\n\n" not in out


def test_full_unfolds_calls_results_and_what_the_agent_was_told(show: Callable[..., Done], mended: str) -> None:
    out = show(SESSION, "--store", mended, "--full").out
    for words in (
        "washer 12",
        "description: Run the check",
        "AssertionError: 6",
        "[Image: source:",
        "The tap was mended;",
    ):
        assert words in out
    assert "more lines" not in out


def test_subagents_and_what_was_taken_back_are_shown_on_demand(show: Callable[..., Done], mended: str) -> None:
    out = show(SESSION, "--store", mended, "--all", "--subagents").out
    assert "      I'll count." in out
    assert "  ↶ taken back after turn 4:" in out
    assert "Painted green instead." in out


def test_only_the_last_turns_are_shown_if_so_wished(show: Callable[..., Done], mended: str) -> None:
    out = show(SESSION, "--store", mended, "--last", "2").out
    assert "… 6 earlier turns\n" in out
    assert "Paint it red" not in out
    assert "After the summary, all is well." in out
    assert "turns       8" in out


def test_json_has_one_record_a_line(show: Callable[..., Done], mended: str) -> None:
    first, *rest = show(SESSION, "--store", mended, "--json", "--all").records
    assert first == {"type": "session", "session_id": SESSION, "scope": "tap", "project_key": "-home-dev-tap"}
    assert [record["type"] for record in rest] == ["turn"] * 8 + ["branch", "summary"]
    calls = [step for step in rest[0]["steps"] if step["kind"] == "tool_call"]
    assert calls[3]["result"]["is_error"] is True
    assert calls[-1]["agent"]["subpath"] == TAP_AGENT
    assert "turns" not in calls[-1]["agent"]
    summary = rest[-1]
    assert (summary["turns"], summary["tool_calls"], summary["branches"], summary["subagents"]) == (8, 11, 1, 1)
    assert summary["usage"]["input_tokens"] == 231464
    assert summary["cost_usd"] == pytest.approx(0.710448)
    assert summary["parts"] == 21


def test_json_holds_subagents_and_the_last_turns_on_demand(show: Callable[..., Done], mended: str) -> None:
    records = show(SESSION, "--store", mended, "--json", "--subagents").records
    assert records[1]["steps"][-2]["agent"]["turns"][0]["steps"][-1]["text"] == "There are three washers."
    records = show(SESSION, "--store", mended, "--json", "--last", "3").records
    assert [record.get("number") for record in records] == [None, 6, 7, 8, None]


def test_no_text_of_a_transcript_reaches_the_terminal_as_more_than_text(
    show: Callable[..., Done], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = tool_use("t", name=HOSTILE, command=HOSTILE, **{HOSTILE: HOSTILE})
    patch = {"structuredPatch": [{"lines": ["+" + HOSTILE]}]}
    entries = [
        said("a", None, [text(HOSTILE), {"type": "image", "source": {"media_type": HOSTILE, "url": HOSTILE}}]),
        {"type": "attachment", "uuid": "b", "parentUuid": "a", "attachment": {"type": HOSTILE, "path": HOSTILE}},
        {"type": "system", "uuid": "c", "parentUuid": "b", "subtype": HOSTILE, "content": HOSTILE},
        answered("d", "c", text(HOSTILE + "\n\n<b>tag</b>"), {"type": "thinking", "thinking": HOSTILE}, call),
        said("e", "d", [tool_result("t", HOSTILE)], toolUseResult=patch),
        answered("f", "e", tool_use("u", "Agent")),
        {"type": HOSTILE.replace("\ud800", "")},
    ]
    entries[3]["message"]["model"] = HOSTILE
    sub = [{"type": "agent_metadata", "description": HOSTILE}, said("s", None, HOSTILE)]
    keep(tmp_path / "store", entries, {"subagents/agent-1": sub}, scope="a [bold] scope")
    for arguments in ((), ("--full", "--subagents", "--all")):
        out = show(SESSION, *arguments).out
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202d\u202e]", out)
        assert "[bold]not markup[/bold]" in out
        assert "<b>tag</b>" in out
        assert "owned" not in out
        assert "a [bold] scope" in out
    done = show(SESSION, "--json", "--subagents")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202d\u202e]", done.out)
    assert done.records[1]["prompt"][0]["text"] == HOSTILE


def test_failures_are_red_and_changes_are_coloured_on_a_terminal() -> None:
    console = Console(force_terminal=True, width=100, color_system="standard")
    with console.capture() as shown:
        Printer(console, full=False, agents=False, branches=False).show(read_conversation(*tap()))
    assert "\x1b[31m✗ Bash\x1b[0m" in shown.get()
    assert "\x1b[31m-    return turns * 3" in shown.get()
    assert "\x1b[32m+    return turns * 2.5" in shown.get()
    assert "\x1b]8" not in shown.get()


def test_a_cost_that_is_not_whole_says_so(show: Callable[..., Done], tmp_path: Path) -> None:
    keep(tmp_path / "store", *fence())
    assert "cost        at least $0.22\n" in show(SESSION).out


def test_the_day_is_told_where_it_changes(show: Callable[..., Done], tmp_path: Path) -> None:
    days = ["2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z", "2026-01-02T09:00:00+02:00"]
    entries = [
        said(str(place), None if not place else str(place - 1), "Hi", timestamp=day) for place, day in enumerate(days)
    ]
    keep(tmp_path / "store", entries)
    heads = [line.rstrip("─ ") for line in show("tap").out.splitlines() if "prompt" in line]
    assert heads == [
        "1 prompt  2026-01-01 10:00:00 · 0.0 s",
        "2 prompt  11:00:00 · 0.0 s",
        "3 prompt  2026-01-02 07:00:00 · 0.0 s",
    ]


def test_a_session_that_is_not_there_is_one_line_and_code_2(show: Callable[..., Done], mended: str) -> None:
    done = show("nobody", "--store", mended)
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(r"error: there is no session nobody in file://\S+ \(.*\)\n", done.err)


def test_a_damaged_session_is_told_by_the_name_of_its_object(show: Callable[..., Done], tmp_path: Path) -> None:
    keep(tmp_path / "store", tap()[0])
    [first, *_] = sorted((tmp_path / "store").glob("sessions/*/*/*/main/*"))
    first.write_bytes(first.read_bytes()[:-1])
    done = show(SESSION)
    assert (done.code, done.out) == (2, "")
    assert f"main/{first.name} is damaged" in done.err


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("--json",), ()])
def test_a_reader_that_goes_away_is_code_141(mended: str, arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [Path(sys.executable).with_name("everturn"), "sessions", "show", SESSION, "--store", mended, *arguments],
        stdout=writing,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
