"""A remote, a cache and a workdir, and an agent that leaves all kinds of things in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from everturn.git.runner import Git
from everturn.git.shadow import Shadow
from everturn.settings import inherited_environment
from everturn.testing import make_repository
from everturn.workdirs.inspection import Unsaved, inspect

FILES = {"a.txt": "a\n", "b.txt": "b\n", "lib/c.txt": "c\n", ".gitignore": "*.log\nbuild/\n"}
GIT_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Trap:
    """A program that nobody should start."""

    program: Path
    trace: Path

    @property
    def ran(self) -> bool:
        return self.trace.exists()


@dataclass
class LeftBehind:
    """What is there when an agent has gone.

    Attributes:
        folder: Where all of it is.
    """

    folder: Path

    @property
    def remote(self) -> Path:
        return self.folder / "remote.git"

    @property
    def cache(self) -> Path:
        return self.folder / "caches" / "shop" / "repo.git"

    @property
    def tree(self) -> Path:
        return self.folder / "trees" / "shop-1"

    @property
    def git_dir(self) -> Path:
        return self.tree / ".git"

    @property
    def ours(self) -> Path:
        return self.folder / "unfinished"

    @property
    def git(self) -> Git:
        return Git(inherited_environment(), GIT_TIMEOUT_S)

    def agent(self, *arguments: str, at: Path | None = None, text: str | None = None) -> str:
        """Run git as the agent does: with whatever is configured."""
        environment = {
            **inherited_environment(),
            "HOME": str(self.folder / "home"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "A",
            "GIT_AUTHOR_EMAIL": "a@example.org",
            "GIT_COMMITTER_NAME": "A",
            "GIT_COMMITTER_EMAIL": "a@example.org",
            "GIT_EDITOR": "true",
        }
        done = subprocess.run(
            ["git", *arguments],
            cwd=at or self.tree,
            env=environment,
            input=text,
            capture_output=True,
            text=True,
            check=True,
            errors="surrogateescape",
        )
        return done.stdout.strip()

    def write(self, name: str, text: str = "new\n") -> Path:
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def commit(self, message: str = "Work", at: Path | None = None) -> str:
        """Commit something and return the commit."""
        place = at or self.tree
        with (place / "work.txt").open("a") as file:
            file.write(f"{message}\n")
        self.agent("add", "work.txt", at=place)
        self.agent("commit", "--quiet", "-m", message, at=place)
        return self.agent("rev-parse", "HEAD", at=place)

    def publish(self, name: str = "from-afar.txt") -> str:
        """Let somebody else push to main, and return the commit."""
        other = self.folder / "other"
        shutil.rmtree(other, ignore_errors=True)
        self.agent("clone", "--quiet", str(self.remote), str(other), at=self.folder)
        (other / name).write_text("far\n")
        self.agent("add", ".", at=other)
        self.agent("commit", "--quiet", "-m", "Afar", at=other)
        self.agent("push", "--quiet", "origin", "HEAD:main", at=other)
        return self.agent("rev-parse", "HEAD", at=other)

    def fetch(self) -> None:
        """Bring the cache up to date, as we do."""
        self.git.run(["fetch", "--quiet", "--tags", "origin"], self.cache)

    @contextmanager
    def shadow(self) -> Iterator[Shadow]:
        with Shadow.of(self.git, self.tree, self.cache / "objects", self.ours) as shadow:
            yield shadow

    def trap(self) -> Trap:
        """Make a program that leaves a trace when it runs."""
        trap = Trap(self.folder / "trap", self.folder / "it-ran")
        trap.program.write_text(f'#!/bin/sh\necho "$0 $*" >> {trap.trace}\ncat > /dev/null\nexit 1\n')
        trap.program.chmod(0o755)
        return trap

    def look(self) -> Unsaved:
        with self.shadow() as shadow:
            return inspect(shadow, self.cache)


def prepare(folder: Path) -> LeftBehind:
    """Make a remote, a cache and a clean workdir."""
    place = LeftBehind(folder)
    for path in (place.ours, folder / "home", place.cache.parent):
        path.mkdir(parents=True)
    start = make_repository(folder / "start", FILES, "One")
    place.git.run(["clone", "--quiet", "--bare", str(start), str(place.remote)], folder)
    place.git.run(["clone", "--quiet", "--bare", str(place.remote), str(place.cache)], folder)
    place.git.run(["config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"], place.cache)
    place.fetch()
    build(place)
    return place


def build(place: LeftBehind) -> None:
    """Make the workdir: a git folder of its own that borrows objects."""
    place.tree.mkdir(parents=True)
    run: Callable[..., str] = place.agent
    run("init", "--quiet", "--initial-branch=main")
    run("config", "remote.origin.url", str(place.remote))
    run("config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")
    (place.git_dir / "objects" / "info" / "alternates").write_text(f"{place.cache / 'objects'}\n")
    commit = run("rev-parse", "refs/heads/main", at=place.cache)
    (place.git_dir / "packed-refs").write_text(f"# pack-refs with: sorted\n{commit} refs/remotes/origin/main\n")
    run("checkout", "--quiet", "-B", "main", "--track", "origin/main")


def copied(template: Path, folder: Path) -> LeftBehind:
    """Copy what `prepare` has made; it names its own paths in three places."""
    shutil.copytree(template, folder, symlinks=True)
    place = LeftBehind(folder)
    for file in (
        place.git_dir / "objects" / "info" / "alternates",
        place.git_dir / "config",
        place.cache / "config",
    ):
        file.write_text(file.read_text().replace(str(template), str(folder)))
    place.agent("update-index", "--refresh")  # copies have other inodes
    return place


def names(tips: tuple[tuple[str, str], ...]) -> list[str]:
    return sorted(name for name, _ in tips)


def all_files(folder: Path) -> dict[str, object]:
    """Return names, contents and times of everything in a folder."""
    found: dict[str, object] = {}
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(root, name)
            at = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path)] = (at.st_mode, at.st_mtime_ns, content)
    return found


def nested(left: LeftBehind, name: str, *files: str) -> Path:
    left.agent("init", "--quiet", name)
    for file in files:
        left.write(f"{name}/{file}")
    return left.tree / name
