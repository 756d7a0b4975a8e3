"""Many at once: sixteen agents on sixteen branches, several repositories, several processes that want one workdir."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from everturn.errors import Held
from everturn.model import RepositoryOptions, WorkItem
from everturn.settings import inherited_environment
from everturn.workdirs.names import cache_name
from workdirs.scene import fsck
from workdirs.yard import Origin, Yard, clean, git, work

AGENTS = 16
REFS = 3000
# Opens a workdir when it is told to, and says how it went; with `hold` it keeps it until it is told to let go.
CHILD = """
import json, sys
from pathlib import Path
from workdirs.yard import Yard
from everturn.errors import Held
from everturn.model import WorkItem
root, url, agent, branch, wait_s = sys.argv[1:]
workdirs = Yard(Path(root)).workdirs(wait_s=float(wait_s))
def say(what):
    print(json.dumps(what), flush=True)
say("ready")
sys.stdin.readline()
try:
    workdir = workdirs.open(WorkItem(agent, url, 7), branch, keep=False)
    diary = Path(root).with_name("diary").open("a")
    diary.write("+"); diary.flush()
    if agent == "same":
        (workdir.path / "built.o").write_text("x")
        diary.write("-"); diary.flush()
    say(str(workdir.path))
    workdir.close()
except Held:
    say("held")
"""


class Child:
    """A process that opens one workdir."""

    def __init__(self, root: Path, origin: Origin, agent: str, branch: str, wait_s: float = 60) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(root), origin.url, agent, branch, str(wait_s)],
            env={**inherited_environment(), "PYTHONPATH": str(Path(__file__).parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> str:
        """Return what it says next."""
        assert self._process.stdout is not None
        return str(json.loads(self._process.stdout.readline()))

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def end(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


def change_refs(origin: Origin, commits: list[str]) -> None:
    """Have three thousand branches show other commits."""
    lines = "".join(f"update refs/heads/many/{number} {commits[number % 2]}\n" for number in range(REFS))
    git(origin.path, "update-ref", "--stdin", text=lines)
    git(origin.path, "pack-refs", "--all")


@pytest.mark.slow
def test_sixteen_agents_open_sixteen_branches_while_three_thousand_refs_change(yard: Yard, origin: Origin) -> None:
    commits = [origin.push({"m.txt": f"{number}\n"}, f"commit{number}") for number in range(2)]
    change_refs(origin, commits)
    yard.workdirs().open(work(origin, agent="first"), "main").close()
    change_refs(origin, commits[::-1])
    tips = {f"branch{number}": origin.push({"b.txt": f"{number}\n"}, f"branch{number}") for number in range(AGENTS)}
    names = list(tips)
    children = [Child(yard.root.path, origin, f"agent{name}", name) for name in names[: AGENTS // 2]]
    for child in children:
        assert child.hear() == "ready"
    together = threading.Barrier(AGENTS // 2 + 1)

    def open_here(name: str) -> Path:
        together.wait()
        workdir = yard.workdirs().open(WorkItem(f"agent{name}", origin.url, 7), name, keep=False)
        workdir.close()
        return workdir.path

    with ThreadPoolExecutor(AGENTS // 2) as pool:
        here = [pool.submit(open_here, name) for name in names[AGENTS // 2 :]]
        for child in children:
            child.go()
        together.wait()
        paths = [Path(child.hear()) for child in children] + [each.result() for each in here]
    for child in children:
        child.end()
    assert len(set(paths)) == AGENTS
    for name, path in zip(names, paths, strict=True):
        assert git(path, "rev-parse", "HEAD") == tips[name]
        assert git(path, "rev-parse", "refs/remotes/origin/many/0") == commits[1]
        assert clean(path)
    assert not fsck(yard.cache)
    assert not fsck(paths[0])


def test_repositories_do_not_wait_for_each_other(yard: Yard, origin: Origin, tmp_path: Path) -> None:
    other = Origin(tmp_path / "remotes" / "other", {"o.txt": "o\n"})
    yard.workdirs().open(work(origin), "main").close()
    name = cache_name(origin.url, RepositoryOptions())
    with yard.root.locked_cache(name, 0):
        assert clean(yard.workdirs().open(work(other), "main").path)
        assert yard.workdirs().open(work(origin), "main", keep=True).outcome == "kept"


@pytest.mark.slow
def test_those_who_want_one_workdir_have_it_one_after_the_other(yard: Yard, origin: Origin) -> None:
    yard.workdirs().open(WorkItem("same", origin.url, 7), "main").close()
    children = [Child(yard.root.path, origin, "same", "main") for _ in range(8)]
    for child in children:
        assert child.hear() == "ready"
    for child in children:
        child.go()
    assert {child.hear() for child in children} == {
        str(yard.workdirs().path(WorkItem("same", origin.url, 7), "main"))
    }
    for child in children:
        child.end()
    assert yard.root.path.with_name("diary").read_text() == "+-" * 8


@pytest.mark.slow
def test_of_those_who_do_not_wait_one_has_it(yard: Yard, origin: Origin) -> None:
    item = WorkItem("same", origin.url, 7)
    together = threading.Barrier(8)

    def open_it(_: int) -> bool:
        together.wait()
        try:
            yard.workdirs().open(item, "main")
        except Held:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(open_it, range(8))) == 1


@pytest.mark.slow
def test_whoever_prepares_first_does_not_matter(origin: Origin, tmp_path: Path) -> None:
    """Eight processes start on a machine on which nothing was ever opened."""
    root = tmp_path / "fresh"
    children = [Child(root, origin, f"agent{number}", "main") for number in range(8)]
    for child in children:
        assert child.hear() == "ready"
    for child in children:
        child.go()
    paths = {child.hear() for child in children}
    for child in children:
        child.end()
    assert len(paths) == 8
    assert all(clean(Path(path)) for path in paths)
