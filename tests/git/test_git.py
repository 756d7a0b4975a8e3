"""The one place that runs git: it runs nothing of strangers, asks nobody, and ends when it has to."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from everturn.errors import Denied, EverturnError, Invalid, NotFound, Unavailable
from everturn.git.runner import NOWHERE, SSH, Git, with_config
from everturn.settings import inherited_environment
from polling import is_alive, wait_until

COMMIT = ["-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "One"]


@pytest.fixture
def git() -> Git:
    return Git(inherited_environment(), timeout_s=30)


@pytest.fixture
def repository(tmp_path: Path, git: Git) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    git.run(["init", "--quiet", "--initial-branch=main"], folder)
    (folder / "a.txt").write_text("a\n")
    git.run(["add", "."], folder)
    git.run([*COMMIT], folder)
    return folder


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def with_fake_git(folder: Path, body: str) -> dict[str, str]:
    """Return an environment in which git is this script."""
    script(folder / "bin" / "git", body)
    environment = inherited_environment()
    return {**environment, "PATH": f"{folder / 'bin'}:{environment['PATH']}"}


def clone(git: Git, source: str, folder: Path) -> str:
    return git.run(["clone", "--quiet", "--end-of-options", source, str(folder / "clone")], folder, online=True)


def test_a_command_returns_what_it_printed(git: Git, repository: Path) -> None:
    assert git.run(["log", "--format=%s"], repository) == "One\n"


@pytest.mark.parametrize("name", ["no-such-repo", "/no/such/repo", "file:///no/such/repo"])
def test_a_repository_that_is_not_there_is_not_found(git: Git, tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound, match="git clone failed: fatal") as caught:
        clone(git, name, tmp_path)
    assert "\n" not in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_git_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no git command"):
        Git({"PATH": str(tmp_path)}, 30).run(["version"], tmp_path)


def test_another_failure_is_unavailable_and_names_its_reason(git: Git, repository: Path) -> None:
    with pytest.raises(Unavailable, match=r"git checkout failed: error: pathspec 'nowhere'"):
        git.run(["checkout", "nowhere"], repository)


def test_output_that_is_no_utf8_comes_as_the_bytes_that_it_is(git: Git, tmp_path: Path) -> None:
    environment = with_fake_git(tmp_path, r"printf 'a\377b\n'")
    assert os.fsencode(Git(environment, 30).run(["log"], tmp_path)) == b"a\xffb\n"


@pytest.mark.slow
def test_a_command_that_is_slow_to_read_gets_all_that_it_is_told(tmp_path: Path) -> None:
    text = "line\n" * 100_000
    environment = with_fake_git(tmp_path, "until [ -e go ]; do :; done; cat")
    threading.Timer(0.5, (tmp_path / "go").touch).start()
    assert Git(environment, 30).run(["hash-object"], tmp_path, text=text) == text


def test_an_error_that_is_no_utf8_can_be_shown(tmp_path: Path) -> None:
    environment = with_fake_git(tmp_path, r"printf 'fatal: a\377b\n' >&2; exit 128")
    with pytest.raises(Unavailable, match="fatal: a\ufffdb"):
        Git(environment, 30).run(["log"], tmp_path)


def test_what_a_remote_says_of_a_full_disk_is_shown_without_what_controls_a_terminal(tmp_path: Path) -> None:
    environment = with_fake_git(tmp_path, r"printf 'remote: \033[2JNo space left on device\n' >&2; exit 128")
    with pytest.raises(Unavailable, match=r"remote: \\x1b\[2JNo space left on device"):
        Git(environment, 30).run(["fetch"], tmp_path)


@pytest.mark.parametrize("count", ["x", "-1", "1.5", "9" * 5000])
def test_an_environment_whose_configuration_cannot_be_counted_is_refused(count: str) -> None:
    with pytest.raises(Invalid, match="GIT_CONFIG_COUNT"):
        with_config({}, {"GIT_CONFIG_COUNT": count})


@pytest.mark.slow
def test_a_command_that_takes_too_long_is_killed_with_everything_it_started(tmp_path: Path) -> None:
    looping = "( while :; do read -r line; done < /dev/zero ) &\necho $$ $! > pids.new; mv pids.new pids\nwait"
    git = Git(with_fake_git(tmp_path, looping), timeout_s=0.5)
    before_s = time.monotonic()
    with pytest.raises(Unavailable, match=r"git fetch took longer than 0\.5 s") as caught:
        git.run(["fetch"], tmp_path)
    assert time.monotonic() - before_s < 10
    assert "git_timeout_s" in caught.value.hint
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    wait_until(lambda: not any(is_alive(pid) for pid in pids), "git and its child are gone")


@pytest.mark.slow
def test_a_child_that_outlives_its_git_is_killed_too(tmp_path: Path) -> None:
    # The child holds the pipe open, so git has ended but is not done.
    left_behind = "( while :; do read -r line; done < /dev/zero ) &\necho $! > pid.new; mv pid.new pid"
    git = Git(with_fake_git(tmp_path, left_behind), timeout_s=0.5)
    with pytest.raises(Unavailable):
        git.run(["fetch"], tmp_path)
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not is_alive(pid), "git's child is gone")


def test_git_has_no_terminal_and_no_input(tmp_path: Path) -> None:
    environment = with_fake_git(
        tmp_path, "read -r line && exit 1\n(true < /dev/tty) 2> /dev/null && exit 1\necho none"
    )
    assert Git(environment, 30).run(["fetch"], tmp_path) == "none\n"


def test_variables_that_steer_git_do_not_reach_it(tmp_path: Path) -> None:
    steering = {
        "GIT_DIR": "/elsewhere",
        "GIT_SSH_COMMAND": "touch x",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "alias.status",
        "GIT_EXEC_PATH": "/elsewhere",
    }
    environment = with_fake_git(tmp_path, "env")
    seen = Git({**environment, **steering, "GITHUB_X": "kept", "GIT_TERMINAL_PROMPT": "1"}, 30).run(["env"], tmp_path)
    variables = dict(line.split("=", 1) for line in seen.splitlines())
    kept = {name: value for name, value in variables.items() if name.startswith("GIT_")}
    assert "alias.status" not in {value for name, value in kept.items() if name.startswith("GIT_CONFIG_KEY")}
    assert {name: value for name, value in kept.items() if not re.match("GIT_CONFIG_(KEY|VALUE|COUNT)", name)} == {
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_PROXY_COMMAND": "",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "GIT_SSH_COMMAND": SSH,
    }
    assert (variables["GITHUB_X"], variables["LC_ALL"]) == ("kept", "C.UTF-8")


def test_a_repository_elsewhere_is_not_mistaken_for_the_one_that_is_meant(
    repository: Path, git: Git, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    clone(git, str(repository), tmp_path)
    git.run(["init", "--quiet", str(other)], tmp_path)
    misled = Git({**inherited_environment(), "GIT_DIR": str(other / ".git"), "GIT_WORK_TREE": str(other)}, 30)
    assert misled.run(["log", "--format=%s"], tmp_path / "clone") == "One\n"


def test_what_needs_no_repository_obeys_none(git: Git, repository: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "config", f"url.{tmp_path}/evil.insteadOf", str(repository)], cwd=repository, check=True)
    arguments = ["ls-remote", "--end-of-options", str(repository)]
    with pytest.raises(NotFound):
        git.run(arguments, repository, online=True)
    assert "HEAD" in git.run(arguments, repository, online=True, extra=NOWHERE)


def test_hooks_of_a_repository_do_not_run(git: Git, repository: Path, tmp_path: Path) -> None:
    trap = f"touch {tmp_path / 'ran'}"
    for name in ("pre-commit", "post-commit", "post-checkout", "post-index-change", "reference-transaction"):
        script(repository / ".git" / "hooks" / name, trap)
        script(tmp_path / "own-hooks" / name, trap)
    (repository / "b.txt").touch()
    for hooks in (None, tmp_path / "own-hooks"):
        if hooks:
            git.run(["config", "core.hooksPath", str(hooks)], repository)
        git.run(["add", "."], repository)
        git.run([*COMMIT, "--allow-empty"], repository)
        git.run(["checkout", "--quiet", "--detach"], repository)
    assert not (tmp_path / "ran").exists()


def test_programs_in_the_config_of_a_repository_do_not_run(git: Git, repository: Path, tmp_path: Path) -> None:
    trap = script(tmp_path / "trap", f"touch {tmp_path / 'ran'}")
    for name in ("core.fsmonitor", "alias.status", "alias.log", "core.pager", "pager.log", "core.editor"):
        git.run(["config", name, f"!{trap}" if name.startswith("alias") else str(trap)], repository)
    (repository / "a.txt").write_text("changed\n")
    git.run(["status", "--porcelain"], repository)
    git.run(["log"], repository)
    git.run(["add", "."], repository)
    assert not (tmp_path / "ran").exists()


def test_what_a_cloned_repository_brings_along_does_not_run(git: Git, repository: Path, tmp_path: Path) -> None:
    trap = script(tmp_path / "trap", f"touch {tmp_path / 'ran'}")
    script(repository / ".git" / "hooks" / "post-checkout", str(trap))
    git.run(["config", "uploadpack.packObjectsHook", str(trap)], repository)
    clone(git, f"file://{repository}", tmp_path)
    assert (tmp_path / "clone" / "a.txt").exists()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "source", ["ext::sh -c touch% x", "ext::sh -c touch%20x", "--upload-pack=touch x", "-utouch x", "--config=x"]
)
def test_a_repository_that_is_a_command_is_refused_and_runs_nothing(git: Git, tmp_path: Path, source: str) -> None:
    with pytest.raises(EverturnError):
        clone(git, source, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_person_who_allows_such_commands_for_themselves_does_not_allow_them_here(tmp_path: Path) -> None:
    (tmp_path / ".gitconfig").write_text('[protocol "ext"]\n\tallow = always\n')
    allowing = {**inherited_environment(), "GIT_ALLOW_PROTOCOL": "ext"}
    with pytest.raises(EverturnError, match="transport 'ext' not allowed"):
        clone(Git(allowing, 30), f"ext::sh -c touch% {tmp_path / 'ran'}", tmp_path)
    assert not (tmp_path / "ran").exists()


class _WantsCredentials(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="shop"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def forge() -> Iterator[str]:
    """A forge that wants to know who one is."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _WantsCredentials) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/shop.git"
        server.shutdown()
        thread.join()


def askpass_in_environment(_: Path, trap: Path) -> dict[str, str]:
    return {"GIT_ASKPASS": str(trap), "SSH_ASKPASS": str(trap), "DISPLAY": ":0"}


def askpass_in_config(home: Path, trap: Path) -> dict[str, str]:
    (home / ".gitconfig").write_text(f"[core]\n\taskPass = {trap}\n")
    return {}


@pytest.mark.parametrize("setup", [askpass_in_environment, askpass_in_config])
def test_nobody_is_asked_for_credentials(
    forge: str, tmp_path: Path, setup: Callable[[Path, Path], dict[str, str]]
) -> None:
    trap = script(tmp_path / "bin" / "ask", f"touch {tmp_path / 'asked'}; echo secret")
    work = tmp_path / "work"
    work.mkdir()
    git = Git({**inherited_environment(), **setup(tmp_path, trap)}, timeout_s=20)
    with pytest.raises(Denied, match="git clone failed") as caught:
        clone(git, forge, work)
    assert "credentials" in caught.value.hint
    assert not (tmp_path / "asked").exists()
    assert list(work.iterdir()) == []


def test_git_itself_is_the_one_on_the_path() -> None:
    version = subprocess.run(["git", "version"], capture_output=True, text=True, check=True).stdout
    assert Git(inherited_environment(), 30).run(["version"], Path("/")) == version
