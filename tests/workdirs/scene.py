"""A workdir with unsaved work in it, a neighbour that borrows from the same cache, and what must hold."""

from __future__ import annotations

import subprocess
from pathlib import Path

from everturn.model import WorkItem
from everturn.workdirs import Workdir
from workdirs.yard import PERSON, Origin, Yard, git

MINE = {"mine.txt": "untracked and precious\n", "committed.txt": "committed and precious\n", "a.txt": "changed\n"}


class Scene:
    """One repository, two agents.

    Attributes:
        tree: The workdir of the one whose place is going to be hurt.
        neighbour: The other one's.
    """

    def __init__(self, yard: Yard, origin: Origin, branch: str = "feature") -> None:
        self.yard = yard
        self.origin = origin
        self.branch = branch
        self.item = WorkItem("fixer", origin.url, 7)
        origin.push({"x.txt": "x\n"}, branch)
        with_two_packs = yard.workdirs().open(WorkItem("tester", origin.url, 7), branch)
        origin.push({"x.txt": "y\n" * 2000}, branch)
        self.neighbour = with_two_packs.path
        with_two_packs.close()
        first = yard.workdirs().open(self.item, branch)
        self.tree = first.path
        self.name = first.name
        first.close()

    def work(self) -> None:
        """Do what the agent does: a commit, a change, a new file."""
        for name, content in MINE.items():
            (self.tree / name).write_text(content)
        git(self.tree, "add", "committed.txt")
        git(self.tree, "commit", "--quiet", "-m", "Precious")

    def open(self, *, keep: bool, branch: str | None = None) -> Workdir:
        """Open it again and let go of it."""
        workdir = self.yard.workdirs().open(self.item, branch or self.branch, keep=keep)
        workdir.close()
        return workdir

    @property
    def cache(self) -> Path:
        return self.yard.cache

    def packs(self, ending: str = "pack") -> list[Path]:
        """Return the cache's packs, the largest first."""
        found = self.cache.glob(f"objects/pack/*.{ending}")
        return sorted(found, key=lambda path: path.stat().st_size, reverse=True)

    # --- What must hold -------------------------------------------------------------------------------------------

    def holders(self, name: str) -> list[Path]:
        """Return where a file of the agent's still is."""
        places = [self.tree, *(kept / "tree" for kept in self.yard.quarantined())]
        return [place for place in places if has(place / name, MINE[name])]

    def assert_nothing_lost(self) -> None:
        for name in MINE:
            assert self.holders(name), f"{name} is gone"

    def assert_sound(self, *, cache: bool = True) -> None:
        """git finds no fault in either workdir nor in the cache, and nothing half-made is around.

        Args:
            cache: Whether the cache was used; else it is only borrowed from, and its refs do not matter.
        """
        for place in (self.tree, self.neighbour, *([self.cache] * cache)):
            assert not (said := fsck(place)), f"{place}: {said}"
        assert git(self.tree, "log", "--format=%s", f"origin/{self.branch}")
        for place in (self.tree / ".git", *([self.cache] * cache)):
            assert not [path for path in place.rglob("*") if path.name.endswith(".lock")]
            assert not list(place.rglob("tmp_*"))
        assert not list(self.yard.root.caches.glob("*/damaged-*"))
        assert [path.name for path in (self.yard.root.path / "unfinished").iterdir() if path.name != "half"] == []

    def assert_shows(self, commit: str | None) -> None:
        """The workdir is clean and on a commit."""
        assert git(self.tree, "rev-parse", "HEAD") == commit
        assert git(self.tree, "status", "--porcelain", "--ignored") == ""


def has(path: Path, content: str) -> bool:
    """Tell whether there is a file with this content."""
    try:
        return path.read_text() == content
    except OSError:
        return False


def fsck(place: Path) -> str:
    """Return what git finds wrong with a repository."""
    command = ["git", "fsck", "--no-dangling", "--no-progress"]
    done = subprocess.run(
        command,
        cwd=place,
        env=PERSON,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    if done.returncode == 0:
        return "\n".join(line for line in said.splitlines() if not line.startswith("notice:"))
    return said or f"exit code {done.returncode}"


def scribble(path: Path, content: bytes = b"\x00garbage\xff\n") -> None:
    """Put garbage into a file, whatever it was."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def cut(path: Path, length: int) -> None:
    """Cut a file off, counted from its end if the length is negative."""
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.truncate(length if length >= 0 else path.stat().st_size + length)
