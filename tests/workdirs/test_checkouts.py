"""One checkout per work item, at a path that stays the same, whole or not there."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from everturn.errors import Conflict, Invalid, NotFound, Unavailable
from everturn.model import WorkItem
from everturn.settings import inherited_environment
from everturn.testing import make_repository
from everturn.workdirs import Workdirs
from everturn.workdirs.checkouts import located
from everturn.workdirs.git import Git


class CountingGit(Git):
    """git that counts its commands, and can be told to fail."""

    def __init__(self) -> None:
        super().__init__(inherited_environment(), timeout_s=30)
        self.commands: list[str] = []
        self.failure: Exception | None = None
        self._lock = threading.Lock()

    def run(self, arguments: Sequence[str], cwd: Path, stop: threading.Event | None = None) -> str:
        with self._lock:
            self.commands.append(arguments[0])
        output = super().run(arguments, cwd, stop)
        if self.failure is not None:
            raise self.failure
        return output


@pytest.fixture
def git() -> CountingGit:
    return CountingGit()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state" / "workdirs"


@pytest.fixture
def workdirs(root: Path, git: CountingGit) -> Workdirs:
    return Workdirs(root, git, lock_timeout_s=20)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "shop", {"a.txt": "a\n"}, "One")


@pytest.fixture
def work(repository: Path) -> WorkItem:
    return WorkItem("fixer", str(repository), 7)


def visible(root: Path) -> list[str]:
    """Return what lies in the folder, locks aside: an empty file may stay for each path."""
    return sorted(item.name for item in root.iterdir() if item.suffix != ".lock") if root.exists() else []


def test_a_checkout_is_a_clone_of_the_repository(workdirs: Workdirs, work: WorkItem) -> None:
    path = workdirs.open(work)
    assert path == workdirs.path(work)
    assert (path / "a.txt").read_text() == "a\n"
    assert Git(inherited_environment(), 30).run(["remote", "get-url", "origin"], path).strip() == work.repo


def test_the_path_of_a_work_item_stays_the_same(workdirs: Workdirs, root: Path, git: CountingGit) -> None:
    first = workdirs.path(WorkItem("fixer", "https://example.org/shop", 7))
    assert Workdirs(root, git, lock_timeout_s=1).path(WorkItem("fixer", "https://example.org/shop", "7")) == first
    assert first.parent == root
    assert "shop" in first.name


def test_work_items_that_look_alike_have_paths_of_their_own(workdirs: Workdirs) -> None:
    names = ["feature/x", "feature-x", "feature_x", "Feature/x", "feature/X", "feature//x", "é", "e", "x" * 300]
    paths = {workdirs.path(WorkItem.task(name)).name for name in names}
    paths |= {workdirs.path(WorkItem("fixer", name, 7)).name for name in names}
    assert len(paths) == 2 * len(names)
    assert len({path.lower() for path in paths}) == len(paths)


@pytest.mark.parametrize("repo", ["../../x", "/etc/passwd", "..", "-rf", ".git", "a b", "x" * 5000])
def test_a_path_never_leaves_the_folder(workdirs: Workdirs, root: Path, repo: str) -> None:
    path = workdirs.path(WorkItem("fixer", repo, "-rf"))
    assert path.parent == root
    assert len(path.name) < 80
    assert set(path.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_what_an_earlier_run_left_is_kept(workdirs: Workdirs, work: WorkItem, git: CountingGit) -> None:
    path = workdirs.open(work)
    (path / "untracked.txt").write_text("mine")
    (path / "a.txt").write_text("changed")
    assert workdirs.open(work) == path
    assert (path / "untracked.txt").read_text() == "mine"
    assert (path / "a.txt").read_text() == "changed"
    assert git.commands.count("clone") == 1


def test_a_checkout_outlives_its_repository(workdirs: Workdirs, work: WorkItem, repository: Path) -> None:
    path = workdirs.open(work)
    shutil.rmtree(repository)
    assert workdirs.open(work) == path


def test_a_damaged_checkout_does_not_damage_the_repository(
    workdirs: Workdirs, work: WorkItem, repository: Path
) -> None:
    path = workdirs.open(work)
    for item in (path / ".git" / "objects").rglob("*"):
        if item.is_file():
            assert item.stat().st_nlink == 1
    assert not (path / ".git" / "objects" / "info" / "alternates").exists()


def test_two_work_items_have_a_checkout_each(workdirs: Workdirs, repository: Path) -> None:
    one, two = (workdirs.open(WorkItem("fixer", str(repository), issue)) for issue in (1, 2))
    (one / "only-here").touch()
    assert one != two
    assert not (two / "only-here").exists()


def test_a_clone_that_was_killed_half_way_is_begun_again(
    workdirs: Workdirs, work: WorkItem, root: Path, git: CountingGit
) -> None:
    path = workdirs.path(work)
    unfinished = root / f".{path.name}.unfinished-1a2b3c"
    (unfinished / ".git" / "objects").mkdir(parents=True)
    (unfinished / "half.txt").touch()
    assert workdirs.open(work) == path
    assert (path / "a.txt").exists()
    assert not (path / "half.txt").exists()
    assert visible(root) == [path.name]


def test_threads_that_open_at_once_clone_once(workdirs: Workdirs, work: WorkItem, git: CountingGit) -> None:
    together = threading.Barrier(4)

    def open_it(_: int) -> Path:
        together.wait()
        return workdirs.open(work)

    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(open_it, range(4)))
    assert set(paths) == {workdirs.path(work)}
    assert git.commands.count("clone") == 1


def test_a_checkout_that_another_opens_for_too_long_is_unavailable(
    root: Path, git: CountingGit, work: WorkItem
) -> None:
    workdirs = Workdirs(root, git, lock_timeout_s=0.1)
    path = workdirs.path(work)
    root.mkdir(parents=True)
    with FileLock(root / f".{path.name}.lock"), pytest.raises(Unavailable, match=r"for 0\.1 s"):
        workdirs.open(work)
    assert git.commands == []
    assert workdirs.open(work) == path


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_something_else_at_the_path_is_a_conflict_and_left_alone(
    workdirs: Workdirs, work: WorkItem, kind: str
) -> None:
    path = workdirs.path(work)
    path.parent.mkdir(parents=True)
    if kind == "folder":
        path.mkdir()
        (path / "thesis.txt").write_text("mine")
    else:
        path.write_text("mine")
    with pytest.raises(Conflict, match="is not a checkout"):
        workdirs.open(work)
    assert (path / "thesis.txt" if kind == "folder" else path).read_text() == "mine"


def test_a_relative_path_is_the_same_repository_from_everywhere(
    workdirs: Workdirs, work: WorkItem, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    near = located(WorkItem("fixer", "shop", 7))
    monkeypatch.chdir(repository)
    assert near == located(WorkItem("fixer", ".", 7)) == located(work) == work
    assert (workdirs.open(near) / "a.txt").exists()


@pytest.mark.parametrize("repo", ["https://example.org/shop", "no/such/folder", "git@example.org:shop", "x" * 5000])
def test_what_is_no_path_here_stays_as_it_is(repo: str) -> None:
    work = WorkItem("fixer", repo, 7)
    assert located(work) == work
    assert located(WorkItem.task("t")) == WorkItem.task("t")


def test_checking_a_repository_makes_nothing(workdirs: Workdirs, work: WorkItem, root: Path, tmp_path: Path) -> None:
    workdirs.check(work)
    with pytest.raises(NotFound):
        workdirs.check(WorkItem("fixer", str(tmp_path / "nowhere"), 7))
    assert not root.exists()


def test_a_task_that_moves_to_another_repository_gets_another_checkout(
    workdirs: Workdirs, repository: Path, tmp_path: Path
) -> None:
    other = tmp_path / "elsewhere" / repository.name
    shutil.copytree(repository, other)
    path = workdirs.open(WorkItem.task("t", repo=str(repository)))
    assert workdirs.open(WorkItem.task("t", repo=str(other))) != path


def test_a_checkout_whose_origin_the_agent_has_changed_is_opened_all_the_same(
    workdirs: Workdirs, work: WorkItem, git: CountingGit
) -> None:
    path = workdirs.open(work)
    git.run(["remote", "remove", "origin"], path)
    assert workdirs.open(work) == path


def test_spellings_of_one_repository_are_one_work_item(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(repository.parent))
    spelled = (f"{repository}", f"{repository}/", f"{repository}/.git", repository.as_uri(), f"~/{repository.name}")
    assert {located(WorkItem("fixer", repo, 7)).key for repo in spelled} == {f"fixer@{repository}#7"}


def test_git_that_is_told_to_stop_stops(git: CountingGit, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word
        port = silent.getsockname()[1]
        stop = threading.Event()
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(Unavailable, match="git ls-remote was stopped"):
            git.run(["ls-remote", f"git://127.0.0.1:{port}/x"], tmp_path, stop)


@pytest.mark.parametrize("repo", ["no/such/repo", "--upload-pack=touch x", "ext::sh -c touch% x", "empty"])
def test_a_failed_clone_leaves_nothing_behind(
    workdirs: Workdirs, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repo: str
) -> None:
    here = tmp_path / "here"
    (here / "empty").mkdir(parents=True)
    monkeypatch.chdir(here)
    with pytest.raises((NotFound, Unavailable, Invalid)):
        workdirs.open(WorkItem("fixer", repo, 7))
    assert visible(root) == []
    assert [item.name for item in here.rglob("*")] == ["empty"]


def test_a_repository_that_looks_like_an_option_is_taken_for_a_repository(workdirs: Workdirs) -> None:
    with pytest.raises(NotFound, match="repository '--bare' does not exist"):
        workdirs.open(WorkItem("fixer", "--bare", 7))


def test_a_clone_that_fails_late_leaves_nothing_behind_and_can_be_tried_again(
    workdirs: Workdirs, work: WorkItem, root: Path, git: CountingGit
) -> None:
    git.failure = Unavailable("git clone took longer than 600 s", hint="try again")
    with pytest.raises(Unavailable):
        workdirs.open(work)
    assert visible(root) == []
    git.failure = None
    assert (workdirs.open(work) / "a.txt").exists()


def test_a_work_item_without_a_repository_has_no_checkout(workdirs: Workdirs, root: Path) -> None:
    with pytest.raises(Invalid, match="task:t has no repository"):
        workdirs.open(WorkItem.task("t"))
    assert not root.exists()


def test_a_task_with_a_repository_has_a_checkout(workdirs: Workdirs, repository: Path) -> None:
    assert (workdirs.open(WorkItem.task("t", repo=str(repository))) / "a.txt").exists()
