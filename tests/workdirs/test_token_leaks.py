"""A token reaches its host and nobody else: no other host, no file, no command line, no log.

Real git, a real HTTPS server, and what an agent may have left behind to lead git astray.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from everturn.clock import SystemClock
from everturn.workdirs.credential_server import CredentialServer
from everturn.workdirs.credentials import Credentials
from everturn.workdirs.identity import Identity, environment
from workdirs.https_git import Authority, Host, make_bare, proxy, serve

TOKEN = "tok-0f5d1c9a7be34e21-SECRET"


@dataclass
class Stage:
    """A forge, somebody evil, an agent's home and checkout, and the environment in which its git runs."""

    folder: Path
    forge: Host
    evil: Host
    authority: Authority
    server: CredentialServer

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def clone(self) -> Path:
        return self.folder / "clone"

    @property
    def url(self) -> str:
        return f"{self.forge.url}/team/shop.git"

    def environment(self, **more: str) -> dict[str, str]:
        someone = Identity("fixer", "fixer@agents.invalid")
        base = {"PATH": os.environ["PATH"], "HOME": str(self.home), "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        return self.server.environment({**base, **environment(someone, someone), **more})

    def git(self, *arguments: str, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", *arguments],
            cwd=cwd or self.clone,
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def plant(self, key: str, value: str) -> None:
        """Leave a setting in the home folder and one in the repository."""
        for file in (self.home / ".gitconfig", self.clone / ".git" / "config"):
            subprocess.run(["git", "config", "--file", str(file), "--add", key, value], check=True)

    def push(self, **more: str) -> subprocess.CompletedProcess[str]:
        done = self.git("commit", "--quiet", "--allow-empty", "-m", "Two", **more)
        assert done.returncode == 0, done.stderr
        return self.git("push", "origin", "HEAD:refs/heads/fix", **more)


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    folder = tmp_path_factory.mktemp("authorities")
    return Authority.make(folder, "good"), Authority.make(folder, "evil")


@pytest.fixture
def stage(tmp_path: Path, authorities: tuple[Authority, Authority]) -> Iterator[Stage]:
    make_bare(tmp_path / "srv" / "team" / "shop.git")
    (tmp_path / "home").mkdir()
    with ExitStack() as stack:
        forge = stack.enter_context(serve(tmp_path / "srv", authorities[0]))
        evil = stack.enter_context(serve(tmp_path / "srv", authorities[0], "127.0.0.1"))
        forge.passwords.add(TOKEN)
        credentials = Credentials({f"{forge.url}/team": lambda _: TOKEN}, SystemClock())
        server = CredentialServer(credentials, tmp_path / "private", ca_file=authorities[0].ca_file)
        stack.callback(server.close)
        stage = Stage(tmp_path, forge, evil, authorities[0], server)
        done = stage.git("clone", "--quiet", stage.url, str(stage.clone), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        yield stage


def test_an_agent_clones_and_pushes_without_ever_being_given_the_token(stage: Stage) -> None:
    done = stage.push()
    assert done.returncode == 0, done.stderr
    assert stage.forge.was_told(TOKEN)
    assert not stage.evil.seen


def test_a_child_of_a_child_pushes_too(stage: Stage) -> None:
    program = "import subprocess, sys; sys.exit(subprocess.call(['sh', '-c', 'git push origin HEAD:refs/heads/fix']))"
    done = subprocess.run([sys.executable, "-c", program], cwd=stage.clone, env=stage.environment(), timeout=60)
    assert done.returncode == 0
