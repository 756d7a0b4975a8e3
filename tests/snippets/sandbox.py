"""Where the snippets of a session run: a folder, a shell that stays, a model with a script, AWS on loopback."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from everturn.testing import LoopbackS3, ScriptedModel, cli_environment
from polling import wait_until
from snippets.models import MODELS

RUN_PYTHON = Path(__file__).with_name("run_python.py")
BUCKET = "my-bucket"
FORGE = "https://git.example"
SERVICE_PORT = "8420"
TIMEOUT_S = 120.0
LOOK_S = 0.1

# Docs may be tried by root, and tests must not change the machine, or get anything from the network.
REFUSED = ("apt", "apt-get", "docker", "kubectl", "make", "pip", "systemctl", "useradd", "install", "sudo", "npm")


@dataclass
class Sandbox:
    """A sandbox.

    Attributes:
        folder: Where blocks run, and the files of the page are.
        home: The home directory, beside it.
        environment: All variables that the shell begins with.
        stand_ins: What docs write, and what stands for it here.
        output: What the last block wrote.
    """

    folder: Path
    home: Path
    environment: dict[str, str]
    stand_ins: Mapping[str, str]
    output: str = ""
    _steps: int = 0

    def __post_init__(self) -> None:
        """Start the shell. It writes the exit code of each step into a pipe."""
        self._codes, self._codes_fd = os.pipe()
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[self._codes_fd],
            start_new_session=True,
        )
        os.close(self._codes_fd)

    def translated(self, text: str) -> str:
        """Return what docs write as it has to be here."""
        for shown, here in self.stand_ins.items():
            text = text.replace(shown, here)
        return text

    def untranslated(self, text: str) -> str:
        """Return what was written here as docs show it."""
        for shown, here in self.stand_ins.items():
            if not shown.startswith("https:"):
                text = text.replace(here, shown)
        return text

    def python(self, text: str, place: str, timeout_s: float) -> int:
        """Run a program with the variables and in the folder of the shell."""
        file = self._keep(text, ".py")
        return self.sh(f"python {RUN_PYTHON} {file} {place}", timeout_s)

    def sh(self, text: str, timeout_s: float, *, strict: bool = True) -> int:
        """Run commands in the shell, and return their exit code.

        Args:
            text: The commands.
            timeout_s: How long they may take.
            strict: Whether the first one that fails is the last one; the shell ends with it.
        """
        file = self._keep(text, ".sh")
        out = file.with_suffix(".out")
        options = "set -eo pipefail" if strict else "set +e"
        self._tell(f"{options}; {{ . {file}; }} </dev/null >{out} 2>&1; echo $? >&{self._codes_fd}")
        code = self._wait(timeout_s)
        self.output = self.untranslated(out.read_text(encoding="utf-8", errors="replace"))
        return code

    def background(self, text: str, ready: str, timeout_s: float) -> None:
        """Start commands that go on until the session ends, and wait for what they say when they are ready."""
        file = self._keep(text, ".sh")
        out = file.with_suffix(".out")
        out.touch()
        self._tell(f"( . {file} ) </dev/null >{out} 2>&1 &")

        def seen() -> bool:
            self.output = self.untranslated(out.read_text(encoding="utf-8", errors="replace"))
            return ready in self.output

        try:
            wait_until(seen, f"{ready!r} from {text!r}", timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from None

    def close(self) -> None:
        """End everything that was started."""
        started = [self._shell.pid]
        with contextlib.suppress(psutil.NoSuchProcess):
            started += [child.pid for child in psutil.Process(self._shell.pid).children(recursive=True)]
        for pid in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
        self._shell.wait()
        os.close(self._codes)
        assert self._shell.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._shell.stdin.close()

    def _keep(self, text: str, suffix: str) -> Path:
        self._steps += 1
        file = self.home.parent / f"step-{self._steps}{suffix}"
        file.write_text(self.translated(text) + "\n", encoding="utf-8")
        return file

    def _tell(self, command: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{command}\n".encode())
        self._shell.stdin.flush()

    def _wait(self, timeout_s: float) -> int:
        # A shell that ends says nothing, and what it started may hold the pipe open.
        for _ in range(int(timeout_s / LOOK_S)):
            if select.select([self._codes], [], [], LOOK_S)[0]:
                return int(os.read(self._codes, 10) or self._shell.wait())
            if (code := self._shell.poll()) is not None:
                return code
        raise AssertionError(f"a snippet was not done after {timeout_s:g} s")


@contextmanager
def sandbox(folder: Path, server: LoopbackS3, model: str, port: int) -> Iterator[Sandbox]:
    """Yield a fresh sandbox.

    Args:
        folder: An empty folder for all of it.
        server: AWS; what the bucket and the tables of the docs held is gone afterwards.
        model: A name in `MODELS`.
        port: Where a service may listen.
    """
    home, work = folder / "home", folder / "work"
    for each in (home, work, folder / "tmp", folder / "var"):
        each.mkdir(parents=True)
    (folder / "gitconfig").write_text(f'[url "{folder}/forge/"]\n\tinsteadOf = {FORGE}/\n', encoding="utf-8")
    refuse(folder / "refused")
    path = f"{folder / 'refused'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    server.create_bucket(BUCKET)
    with ScriptedModel(MODELS[model]).serve() as url:
        environment = {
            **cli_environment(url, home, path=path, tmpdir=folder / "tmp"),
            **server.environment,
            "EVERTURN_GIT_CONFIG_FILE": str(folder / "gitconfig"),
            "GIT_CONFIG_GLOBAL": str(folder / "gitconfig"),
            "EVERTURN_SERVE_PORT": str(port),
            "COLUMNS": "120",
            "NO_COLOR": "1",
        }
        made = Sandbox(
            work,
            home,
            environment,
            {
                "https://everturn.example.org": f"http://127.0.0.1:{port}",
                f"127.0.0.1:{SERVICE_PORT}": f"127.0.0.1:{port}",
                "/var/lib/everturn": str(folder / "var"),
            },
        )
        try:
            yield made
        finally:
            made.close()
            _empty(server)
            shutil.rmtree(folder, ignore_errors=True)


def refuse(folder: Path) -> None:
    """Make programs that say they are not to be run from docs."""
    folder.mkdir()
    for name in REFUSED:
        (folder / name).write_text(f"#!/bin/sh\necho '{name} is not for sandboxes' >&2\nexit 126\n", encoding="utf-8")
        (folder / name).chmod(0o755)


def _empty(server: LoopbackS3) -> None:
    """Take the docs' bucket away, and the tables."""
    client = server.client()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for item in page.get("Contents", []):
            client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=BUCKET)


def alike(expected: str, seen: str, *, numbers: bool) -> bool:
    """Tell whether an output is what the docs show.

    Args:
        expected: In it `…` stands for anything: alone on a line for any lines, else for any part of the line.
        seen: What was written.
        numbers: Whether any number and any id stands for any other one.
    """
    lines = [re.escape(line.rstrip()) for line in expected.strip("\n").splitlines()]
    pattern = "\n".join("(?s:.*?)" if line.strip() == "…" else line.replace("…", "[^\n]*") for line in lines)
    if numbers:
        pattern = re.sub(r"[0-9a-f]*\d[0-9a-f]*(?:\\?[.,:-][0-9a-f]*\d[0-9a-f]*)*", r"[0-9a-f.,:-]+", pattern)
    text = "\n".join(line.rstrip() for line in seen.strip("\n").splitlines())
    return re.fullmatch(pattern, text) is not None
