"""`everturn sessions export`: files that appear whole or not at all, and that the agent command itself can read."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import claude_agent_sdk
import pytest
from claude_agent_sdk import project_key_for_directory

from cli.console import Done
from everturn.cli.app import _run
from everturn.cli.sessions.exporting import write_whole
from everturn.errors import Invalid
from everturn.testing import ModelRequest, Reply, ScriptedModel, ToolUse, cli_environment
from recorded import SESSION, TAP_AGENT, keep, tap

AGENT = Path(claude_agent_sdk.__file__).parent / "_bundled" / "claude"


@pytest.fixture(scope="module")
def mended(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The recorded session in a store, put there once."""
    return keep(tmp_path_factory.mktemp("tap") / "store", *tap())


@pytest.fixture
def export(capsys: pytest.CaptureFixture[str], mended: str) -> Callable[..., Done]:
    """The command, on the recorded session."""

    def call(*arguments: str | Path) -> Done:
        code = _run(["sessions", "export", SESSION, "--store", mended, *map(str, arguments)])
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return call


@pytest.mark.parametrize(
    ("form", "begins"), [("jsonl", "{"), ("markdown", "# Mend the leaking tap"), ("html", "<!doctype html>\n")]
)
def test_without_a_file_the_session_goes_to_standard_output(
    export: Callable[..., Done], form: str, begins: str
) -> None:
    done = export("--format", form)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(begins)
    assert "Painted red." in done.out


def test_a_file_is_written_whole_for_its_owner_alone_and_nothing_is_left_beside_it(
    export: Callable[..., Done], tmp_path: Path
) -> None:
    file = tmp_path / "new" / "tap.jsonl"
    done = export("--format", "jsonl", "--output", file)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{file}: {file.stat().st_size / 1000:.1f} kB\n"
    assert [json.loads(line) for line in file.read_text().splitlines()] == tap()[0]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_a_folder_takes_the_session_under_its_name_and_subagents_beside_it(
    export: Callable[..., Done], tmp_path: Path
) -> None:
    done = export("--format", "jsonl", "--subagents", "--output", tmp_path, "--json")
    assert done.code == 0
    names = [f"{SESSION}.jsonl", f"{SESSION}/{TAP_AGENT}.jsonl", f"{SESSION}/{TAP_AGENT}.meta.json"]
    report = json.loads(done.out)
    assert [file["path"] for file in report["files"]] == [str(tmp_path / name) for name in names]
    assert [file["size_bytes"] for file in report["files"]] == [(tmp_path / name).stat().st_size for name in names]
    assert (report["session_id"], report["format"], report["entries"]) == (SESSION, "jsonl", 137)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json*")) == sorted(names)


@pytest.mark.parametrize(("form", "suffix"), [("markdown", "md"), ("html", "html")])
def test_a_folder_takes_a_page_under_the_name_of_the_session(
    export: Callable[..., Done], tmp_path: Path, form: str, suffix: str
) -> None:
    assert export("--format", form, "--subagents", "--output", tmp_path).code == 0
    assert "There are three washers" in (tmp_path / f"{SESSION}.{suffix}").read_text()


def test_a_file_that_exists_is_overwritten_only_by_force(export: Callable[..., Done], tmp_path: Path) -> None:
    file = tmp_path / "tap.md"
    file.write_text("mine")
    done = export("--format", "markdown", "--output", file)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {file} exists already (")
    assert file.read_text() == "mine"
    assert export("--format", "markdown", "--output", file, "--force").code == 0
    assert file.read_text().startswith("# Mend")


def test_one_file_that_exists_keeps_all_from_being_written(export: Callable[..., Done], tmp_path: Path) -> None:
    taken = tmp_path / SESSION / f"{TAP_AGENT}.jsonl"
    taken.parent.mkdir(parents=True)
    taken.write_text("mine")
    assert export("--format", "jsonl", "--subagents", "--output", tmp_path).code == 2
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [taken]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--format", "jsonl", "--subagents"), "subagents' entries go to files of their own"),
        (("--format", "html", "--json"), "standard output cannot hold the export and a report on it"),
        (("--format", "pdf"), "Invalid value for '--format'"),
        (("--format", "html", "--output", "/proc/nothing/x.html"), "/proc/nothing/x.html cannot be written"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    export: Callable[..., Done], arguments: tuple[str, ...], complaint: str
) -> None:
    done = export(*arguments)
    assert (done.code, done.out) == (2, "")
    assert complaint in done.err
    assert done.err.count("\n") == 1


def test_a_failure_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "old.md"
    file.write_text("old")

    def pieces() -> Iterator[bytes]:
        yield b"new"
        raise OSError(28, "No space left on device")

    with pytest.raises(Invalid, match="No space left on device"):
        write_whole(file, pieces())
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


# --- The agent command reads it ---------------------------------------------------------------------------------


def answer(request: ModelRequest) -> Reply:
    asked = request.last_user_text()
    if "What was it?" in asked:
        return Reply("It was the washer.")
    if "Look into the shed." in str(request.messages[0]):
        return Reply("The shed is empty.")
    if request.tool_results():
        return Reply("The washer is worn.")
    shed = {"description": "Look", "prompt": "Look into the shed.", "subagent_type": "general-purpose"}
    return Reply(
        ToolUse("Bash", {"command": "echo drip-$((40 + 2))"}), ToolUse("Agent", {**shed, "run_in_background": False})
    )


@pytest.mark.cli
@pytest.mark.slow
def test_the_agent_command_resumes_from_an_exported_file_in_a_clean_home(everturn: Any, tmp_path: Path) -> None:
    model = ScriptedModel(answer)
    home = tmp_path / "home"
    project = home / ".claude" / "projects" / project_key_for_directory(everturn.desk)
    project.mkdir(parents=True)
    with model.serve() as url:
        given = ("--task", "tap", "--prompt", "Mend the leaking tap.", "--permission-mode", "bypassPermissions")
        ran = everturn("run", *given, "--json", model_url=url)
        session = json.loads(ran.stdout.splitlines()[-1])["session"]
        done = everturn("sessions", "export", session, "--format", "jsonl", "--subagents", "--output", project)
        assert (done.returncode, done.stderr) == (0, "")
        [file] = project.glob("*.jsonl")
        resumed = subprocess.run(
            [AGENT, "--print", "--resume", file.stem, "What was it?"],
            cwd=everturn.desk,
            env=cli_environment(url, home, tmpdir=everturn.tmp),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (resumed.returncode, resumed.stdout.strip()) == (0, "It was the washer.")
    assert len(list(project.glob("*/subagents/agent-*.jsonl"))) == 1
    said = "\n".join(model.requests[-1].texts())
    assert said.index("Mend the leaking tap.") < said.index("The washer is worn.") < said.index("What was it?")
    assert "drip-42" in [result for _, result in model.requests[-1].tool_results()]
    shown = everturn("sessions", "show", session, "--subagents")
    assert "1 prompt, claim 1" in shown.stdout
    assert "The shed is empty." in shown.stdout


@pytest.mark.slow
def test_a_reader_that_goes_away_is_code_141(mended: str) -> None:
    command = [Path(sys.executable).with_name("everturn"), "sessions", "export", SESSION, "--store", mended]
    with subprocess.Popen([*command, "--format", "jsonl"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        complaint = process.stderr.read()
        assert (process.wait(60), complaint) == (141, b"")
