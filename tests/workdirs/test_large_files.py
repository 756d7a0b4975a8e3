"""Git LFS: large files are fetched on request, and an agent's own are pushed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from everturn.errors import Invalid
from everturn.git.runner import Git
from everturn.model import RepositoryOptions, WorkItem
from everturn.settings import inherited_environment
from workdirs.yard import PERSON, Origin, Yard, git

pytestmark = pytest.mark.slow

TOOLS = Path(__file__).parents[2] / ".tools"
HINT = "git-lfs is missing: `make git-lfs` gets it, and says what to do if it cannot"


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have git find the git-lfs that `make` got, unless the machine has one."""
    found = f"{os.environ['PATH']}:{TOOLS}"
    assert shutil.which("git-lfs", path=found), HINT
    monkeypatch.setenv("PATH", found)
    monkeypatch.setitem(PERSON, "PATH", found)


@pytest.fixture
def large(tmp_path: Path) -> tuple[Origin, str]:
    """A remote with a large file, and its URL."""
    origin = Origin(tmp_path / "remotes" / "shop", {"a.txt": "a\n"})
    desk = tmp_path / "desk"
    git(tmp_path, "clone", "--quiet", origin.path.as_uri(), str(desk))
    git(desk, "lfs", "install", "--local")
    git(desk, "lfs", "track", "*.bin")
    (desk / "big.bin").write_text("large\n")
    git(desk, "add", ".")
    git(desk, "commit", "--quiet", "-m", "Large")
    git(desk, "push", "--quiet")
    return origin, origin.path.as_uri()


def opened(yard: Yard, url: str, issue: int = 7, **options: bool) -> Path:
    yard.options[url] = RepositoryOptions(**options)
    workdir = yard.workdirs().open(WorkItem("fixer", url, issue), "main", keep=False)
    workdir.close()
    return workdir.path


def test_large_files_are_left_as_pointers_unless_they_are_asked_for(yard: Yard, large: tuple[Origin, str]) -> None:
    path = opened(yard, large[1])
    assert (path / "big.bin").read_text().startswith("version https://git-lfs")
    again = opened(yard, large[1], 8, lfs=True)
    assert again == path
    assert (path / "big.bin").read_text() == "large\n"
    assert not git(path, "status", "--porcelain")
    assert not yard.quarantined()


def test_what_an_agent_adds_is_pushed(yard: Yard, large: tuple[Origin, str], tmp_path: Path) -> None:
    path = opened(yard, large[1], lfs=True)
    (path / "more.bin").write_text("more\n")
    git(path, "add", ".")
    git(path, "commit", "--quiet", "-m", "More")
    git(path, "push", "--quiet")
    other = Yard(tmp_path / "other-machine")
    assert (opened(other, large[1], lfs=True) / "more.bin").read_text() == "more\n"
    assert not git(path, "status", "--porcelain")
    assert opened(yard, large[1], 8, lfs=True) == path
    assert not yard.quarantined()


def test_without_the_program_it_is_refused_and_nothing_is_made(
    yard: Yard, large: tuple[Origin, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "git").symlink_to(shutil.which("git") or "")
    yard.git = Git({**inherited_environment(), "PATH": str(programs)}, timeout_s=60)
    with pytest.raises(Invalid, match="there is no git-lfs"):
        opened(yard, large[1], lfs=True)
    assert not list(yard.root.trees.iterdir())
