"""A place to work in for each agent and branch: the same one each time, up to date, and nobody else's meanwhile."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from everturn.clock import ManualClock
from everturn.errors import Held, NotFound, Unavailable
from everturn.git.runner import GaveUp, Git
from everturn.model import RepositoryOptions, WorkItem
from everturn.settings import inherited_environment
from everturn.workdirs import workdirs as opening
from everturn.workdirs.records import CacheRecord, WorkdirRecord
from workdirs.yard import Origin, Yard, clean, git, opened, work

HOLDER = """
import sys, time
from pathlib import Path
from workdirs.yard import Yard
from everturn.model import WorkItem
Yard(Path(sys.argv[1])).workdirs().open(WorkItem("fixer", sys.argv[2], 7))
print("open", flush=True)
time.sleep(60)
"""


def test_a_workdir_shows_the_default_branch(yard: Yard, origin: Origin) -> None:
    path = opened(yard.workdirs(), work(origin))
    assert (path / "a.txt").read_text() == "a\n"
    assert git(path, "branch", "--show-current") == "main"
    assert git(path, "remote", "get-url", "origin") == origin.url
    assert git(path, "rev-parse", "HEAD") == origin.has("refs/heads/main")
    assert clean(path)


def test_an_agent_can_commit_pull_and_push_there(yard: Yard, origin: Origin) -> None:
    path = opened(yard.workdirs(), work(origin), "feature/x")
    (path / "a.txt").write_text("better\n")
    git(path, "commit", "--quiet", "-am", "Better")
    git(path, "push", "--quiet")
    assert origin.has("refs/heads/feature/x") == git(path, "rev-parse", "HEAD")
    later = origin.push({"c.txt": "c\n"}, "feature/x")
    git(path, "pull", "--quiet", "--ff-only")
    assert git(path, "rev-parse", "HEAD") == later
    assert git(path, "rev-parse", "--abbrev-ref", "origin/HEAD") == "origin/main"


def test_its_path_is_the_same_in_every_process_and_says_what_it_is(yard: Yard, tmp_path: Path) -> None:
    item = WorkItem("fixer", "https://example.org/acme/shop", 7)
    path = yard.workdirs().path(item)
    assert (
        Yard(tmp_path / "workdirs").workdirs().path(WorkItem("fixer", "https://example.org/acme/shop.git", "7"))
        == path
    )
    assert path.parent == yard.root.trees
    assert path.name.startswith("fixer-shop-7-")


def test_there_is_one_for_each_agent_and_branch_or_else_for_each_work_item(yard: Yard, origin: Origin) -> None:
    workdirs = yard.workdirs()
    paths = {
        workdirs.path(work(origin, issue, agent), branch)
        for issue in (1, 2)
        for agent in ("fixer", "tester")
        for branch in ("main", "feature/x", None)
    }
    assert len(paths) == 2 * 2 + 2 * 2  # agents and branches; agents and issues


def test_names_that_look_alike_have_paths_of_their_own(yard: Yard, origin: Origin) -> None:
    workdirs = yard.workdirs()
    branches = ["feature/x", "feature-x", "feature_x", "Feature/x", "feature/X", "featüre/x", "feature/x́", "x" * 200]
    paths = {workdirs.path(work(origin), branch).name for branch in branches}
    paths |= {workdirs.path(WorkItem.task(name, repo=origin.url)).name for name in branches}
    paths |= {workdirs.path(WorkItem("fixer", name, 7)).name for name in branches}
    assert len({path.lower() for path in paths}) == 3 * len(branches)


@pytest.mark.parametrize("repo", ["../../x", "/etc/passwd", "..", ".git", "a b", "x" * 5000, "https://h/..%2f.."])
def test_a_path_never_leaves_the_folder(yard: Yard, repo: str) -> None:
    path = yard.workdirs().path(WorkItem("fixer", repo, "-rf"))
    assert path.parent == yard.root.trees
    assert len(path.name) < 80
    assert set(path.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


# --- A conversation that goes on ------------------------------------------------------------------------------------


def test_what_a_conversation_left_is_there_when_it_goes_on(yard: Yard, origin: Origin) -> None:
    workdirs = yard.workdirs()
    path = opened(workdirs, work(origin))
    (path / "untracked.txt").write_text("mine")
    (path / "a.txt").write_text("changed")
    git(path, "config", "user.name", "An agent")
    again = workdirs.open(work(origin))
    assert (again.path, again.outcome, again.warnings) == (path, "kept", [])
    assert (path / "untracked.txt").read_text() == "mine"
    assert (path / "a.txt").read_text() == "changed"
    assert git(path, "config", "user.name") == "An agent"


def test_it_goes_on_without_its_remote(yard: Yard, origin: Origin) -> None:
    workdirs = yard.workdirs()
    path = opened(workdirs, work(origin))
    shutil.rmtree(origin.path)
    workdirs.check(work(origin))
    assert opened(workdirs, work(origin)) == path
    with pytest.raises(NotFound):
        workdirs.open(work(origin), keep=False)


def test_another_branch_is_another_workdir_and_the_old_one_stays_as_it_is(yard: Yard, origin: Origin) -> None:
    workdirs = yard.workdirs()
    origin.push({"x.txt": "x\n"}, "feature/x")
    first = opened(workdirs, work(origin), "main")
    (first / "notes.txt").write_text("mine")
    second = opened(workdirs, work(origin), "feature/x")
    assert second != first
    assert (second / "x.txt").exists()
    assert (first / "notes.txt").read_text() == "mine"


# --- Another conversation -------------------------------------------------------------------------------------------


def test_another_conversation_finds_it_up_to_date_and_clean(yard: Yard, origin: Origin) -> None:
    workdirs = yard.workdirs()
    path = opened(workdirs, work(origin, 1), "main")
    unchanged = (path / "lib/b.txt").stat().st_mtime_ns
    (path / "built.o").write_text("ignored")
    git(path, "config", "core.hooksPath", "hooks")
    git(path, "branch", "of-the-first")
    latest = origin.push({"a.txt": "newer\n", "c/d.txt": "d\n"})
    again = workdirs.open(work(origin, 2), "main", keep=False)
    assert (again.path, again.outcome, again.warnings) == (path, "reused", [])
    assert git(path, "rev-parse", "HEAD", "origin/main").split() == [latest, latest]
    assert (path / "a.txt").read_text() == "newer\n"
    assert (path / "built.o").exists()
    assert git(path, "branch", "--format=%(refname:short)") == "main"
    assert "hooksPath" not in (path / ".git" / "config").read_text()
    assert (path / "lib/b.txt").stat().st_mtime_ns == unchanged
    assert clean(path)


def test_another_work_item_is_another_conversation_even_if_it_goes_on_elsewhere(yard: Yard, origin: Origin) -> None:
    workdirs = yard.workdirs()
    path = opened(workdirs, work(origin, 1), "main")
    latest = origin.push({"a.txt": "newer\n"})
    assert workdirs.open(work(origin, 2), "main", keep=True).outcome == "reused"
    assert git(path, "rev-parse", "HEAD") == latest


def test_ignored_files_go_if_they_are_not_to_be_kept(yard: Yard, origin: Origin) -> None:
    yard.options[origin.url] = RepositoryOptions(keep_ignored=False)
    workdirs = yard.workdirs()
    path = opened(workdirs, work(origin), "main")
    (path / "build").mkdir()
    (path / "build" / "shop.o").write_text("ignored")
    assert opened(workdirs, work(origin), "main", keep=False) == path
    assert not (path / "build").exists()


@pytest.mark.parametrize("what", ["changed", "staged", "untracked", "committed", "stashed"])
def test_unsaved_work_is_put_into_quarantine_before_another_conversation_begins(
    yard: Yard, origin: Origin, what: str
) -> None:
    workdirs = yard.workdirs()
    path = opened(workdirs, work(origin), "main")
    name = "new.txt" if what == "untracked" else "a.txt"
    (path / name).write_text("precious\n")
    if what in ("staged", "committed"):
        git(path, "add", ".")
    if what == "committed":
        git(path, "commit", "--quiet", "-m", "Precious")
    if what == "stashed":
        git(path, "stash")
    again = workdirs.open(work(origin), "main", keep=False)
    (kept,) = yard.quarantined()
    assert str(kept) in again.warnings[0]
    assert "How to get it back" in (kept / "NOTE.md").read_text()
    if what == "stashed":
        git(kept / "tree", "stash", "pop")
    assert (kept / "tree" / name).read_text() == "precious\n"
    assert (again.path, again.outcome) == (path, "new")
    assert clean(path)
    assert yard.counted("workdir_rescues_total", how="quarantine") == 1


def test_unsaved_work_can_be_pushed_instead(yard: Yard, origin: Origin) -> None:
    workdirs = yard.workdirs(how="push")
    path = opened(workdirs, work(origin), "main")
    (path / "new.txt").write_text("precious\n")
    again = workdirs.open(work(origin), "main", keep=False)
    refs = git(origin.path, "for-each-ref", "--format=%(refname)", "refs/everturn/rescue").split()
    assert refs[0] in again.warnings[0]
    assert git(origin.path, "show", f"{refs[0]}:new.txt") == "precious"
    assert again.outcome == "reused"
    assert clean(path)
    assert not yard.quarantined()


class StoppedAtPush(Git):
    """Is stopped in the middle of a push."""

    stop = threading.Event()

    def run(self, arguments: Sequence[str], *given: Any, **more: Any) -> str:
        if arguments[0] == "push":
            self.stop.set()
            raise GaveUp("git push was stopped", hint="run it again")
        return super().run(arguments, *given, **more)


def test_a_push_that_is_stopped_leaves_the_workdir_as_it_is(yard: Yard, origin: Origin) -> None:
    yard.git = StoppedAtPush(inherited_environment(), timeout_s=60)
    workdirs = yard.workdirs(how="push")
    path = opened(workdirs, work(origin), "main")
    (path / "new.txt").write_text("precious\n")
    with pytest.raises(Unavailable, match="stopped"):
        workdirs.open(work(origin), "main", keep=False, stop=StoppedAtPush.stop)
    assert (path / "new.txt").read_text() == "precious\n"
    assert yard.quarantined() == []


def test_what_was_pushed_is_kept_in_the_cache_when_the_remote_has_forgotten_it(yard: Yard, origin: Origin) -> None:
    workdirs = yard.workdirs()
    path = opened(workdirs, work(origin), "feature/x")
    (path / "a.txt").write_text("better\n")
    git(path, "commit", "--quiet", "-am", "Better")
    git(path, "push", "--quiet")
    commit = git(path, "rev-parse", "HEAD")
    origin.delete("feature/x")
    again = workdirs.open(work(origin), "feature/x", keep=False)
    assert (again.outcome, yard.quarantined()) == ("reused", [])
    assert commit in git(yard.cache, "for-each-ref", "--format=%(objectname)", "refs/everturn/kept")


# --- What to work on ------------------------------------------------------------------------------------------------


def test_a_branch_that_the_remote_does_not_have_begins_at_the_default_branch(yard: Yard, origin: Origin) -> None:
    path = opened(yard.workdirs(), work(origin), "fix/7")
    assert git(path, "branch", "--show-current") == "fix/7"
    assert git(path, "rev-parse", "HEAD") == origin.has("refs/heads/main")


def test_a_ref_of_the_remote_is_shown_without_a_branch(yard: Yard, origin: Origin) -> None:
    commit = origin.push({"p.txt": "p\n"}, ref="refs/pull/7/head")
    path = opened(yard.workdirs(), work(origin), "refs/pull/7/head")
    assert git(path, "rev-parse", "HEAD") == commit
    assert not git(path, "branch", "--show-current")
    newer = origin.push({"p.txt": "q\n"}, ref="refs/pull/7/head")
    assert opened(yard.workdirs(), work(origin), "refs/pull/7/head", keep=False) == path
    assert git(path, "rev-parse", "HEAD") == newer


def test_a_tag_that_has_a_message_is_shown_as_its_commit(yard: Yard, origin: Origin) -> None:
    git(origin.path, "tag", "-a", "-m", "One", "v1", "main")
    path = opened(yard.workdirs(), work(origin), "refs/tags/v1")
    assert git(path, "describe", "--exact-match") == "v1"
    assert clean(path)


def test_a_commit_is_shown_and_not_asked_for_again(yard: Yard, origin: Origin) -> None:
    commit = origin.has("refs/heads/main")
    origin.push({"a.txt": "newer\n"})
    workdirs = yard.workdirs()
    path = opened(workdirs, work(origin), commit)
    assert git(path, "rev-parse", "HEAD") == commit
    shutil.rmtree(origin.path)
    assert opened(workdirs, work(origin, agent="tester"), commit) != path


def test_a_commit_that_no_branch_has_any_more_is_fetched_by_its_id(yard: Yard, origin: Origin) -> None:
    commit = origin.push({"a.txt": "lost\n"}, "gone")
    origin.delete("gone")
    git(origin.path, "config", "uploadpack.allowAnySHA1InWant", "true")
    assert (opened(yard.workdirs(), work(origin), commit) / "a.txt").read_text() == "lost\n"


@pytest.mark.parametrize("branch", ["refs/pull/8/head", "0" * 40])
def test_what_the_remote_does_not_have_is_not_found(yard: Yard, origin: Origin, branch: str) -> None:
    workdirs = yard.workdirs()
    with pytest.raises(NotFound):
        workdirs.open(work(origin), branch)
    assert not list(yard.root.trees.iterdir())


def test_a_repository_without_commits_can_be_begun(yard: Yard, tmp_path: Path) -> None:
    empty = Origin(tmp_path / "empty")
    path = opened(yard.workdirs(), work(empty))
    (path / "first.txt").write_text("1")
    git(path, "add", ".")
    git(path, "commit", "--quiet", "-m", "First")
    git(path, "push", "--quiet")
    assert empty.has("refs/heads/main")
    assert opened(yard.workdirs(), work(empty), keep=False) == path


# --- Options --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("sparse", "seen"), [(("lib",), True), (("*.txt", "!b.txt"), False)])
def test_a_sparse_workdir_has_what_is_asked_for(
    yard: Yard, origin: Origin, sparse: tuple[str, ...], seen: bool
) -> None:
    origin.push({"big/c.bin": "c", "lib/b.txt": "b\n"})
    yard.options[origin.url] = RepositoryOptions(sparse=sparse)
    workdirs = yard.workdirs()
    path = opened(workdirs, work(origin), "main")
    for _ in range(2):
        assert not (path / "big").exists()
        assert (path / "lib/b.txt").exists() is seen
        assert clean(path)
        origin.push({"big/e.bin": "e"})
        assert opened(workdirs, work(origin), "main", keep=False) == path
    assert not yard.quarantined()


@pytest.mark.slow
def test_a_workdir_that_was_whole_becomes_sparse_and_whole_again(yard: Yard, origin: Origin) -> None:
    workdirs = yard.workdirs()
    path = opened(workdirs, work(origin), "main")
    for sparse in (("none",), ()):
        yard.options[origin.url] = RepositoryOptions(sparse=sparse)
        assert opened(workdirs, work(origin), "main", keep=False) == path
        assert (path / "lib").exists() is not bool(sparse)
        assert clean(path)


def test_a_blobless_cache_fetches_contents_when_they_are_needed(yard: Yard, origin: Origin) -> None:
    git(origin.path, "config", "uploadpack.allowFilter", "true")
    git(origin.path, "config", "uploadpack.allowAnySHA1InWant", "true")
    origin.push({"a.txt": "newer\n"})
    item = WorkItem("fixer", origin.path.as_uri(), 7)
    yard.options[origin.path.as_uri()] = RepositoryOptions(blobless=True, sparse=("lib",))
    path = opened(yard.workdirs(), item)
    objects = git(yard.cache, "cat-file", "--batch-check", "--batch-all-objects", "--unordered")
    assert "commit" in objects
    assert "blob" not in objects
    assert git(path, "show", "HEAD~1:a.txt") == "a"
    assert opened(yard.workdirs(), item, keep=False) == path


@pytest.mark.slow
def test_a_shallow_cache_has_no_more_than_its_depth(yard: Yard, origin: Origin) -> None:
    for number in range(4):
        origin.push({"a.txt": f"{number}\n"})
    url = origin.path.as_uri()
    yard.options[url] = RepositoryOptions(depth=2)
    path = opened(yard.workdirs(), WorkItem("fixer", url, 7), "main")
    assert git(path, "rev-list", "--count", "HEAD") == "2"
    origin.push({"a.txt": "latest\n"})
    assert opened(yard.workdirs(), WorkItem("fixer", url, 8), "main", keep=False) == path
    assert (path / "a.txt").read_text() == "latest\n"
    (path / "a.txt").write_text("mine\n")
    git(path, "commit", "--quiet", "-am", "Mine")
    git(path, "push", "--quiet")


@pytest.mark.slow
def test_submodules_are_checked_out_on_request(yard: Yard, origin: Origin, tmp_path: Path) -> None:
    module = Origin(tmp_path / "remotes" / "module", {"m.txt": "m\n"})
    desk = tmp_path / "desk"
    git(tmp_path, "clone", "--quiet", origin.url, str(desk))
    git(desk, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", module.url, "vendor/m")
    git(desk, "commit", "--quiet", "-m", "A module")
    git(desk, "push", "--quiet")
    assert not (opened(yard.workdirs(), work(origin, 1)) / "vendor/m/m.txt").exists()
    yard.options[origin.url] = RepositoryOptions(submodules=True)
    path = opened(yard.workdirs(), work(origin, 2), "main")
    for _ in range(2):
        assert (path / "vendor/m/m.txt").read_text() == "m\n"
        assert clean(path)
        assert opened(yard.workdirs(), work(origin, 2), "main", keep=False) == path
    assert not yard.quarantined()


# --- Many at once, and what it costs --------------------------------------------------------------------------------


def test_what_is_there_is_not_fetched(yard: Yard, origin: Origin) -> None:
    workdirs = yard.workdirs()
    for issue in range(3):
        opened(workdirs, work(origin, issue))
    assert yard.counted("git_fetches_total", outcome="done") == 1
    origin.push({"a.txt": "newer\n"})
    opened(workdirs, work(origin, 3))
    assert yard.counted("git_fetches_total", outcome="done") == 2
    assert yard.counted("workdir_opens_total", outcome="new") == 4


@pytest.mark.slow
def test_those_that_come_at_once_fetch_once(yard: Yard, origin: Origin) -> None:
    workdirs = yard.workdirs()
    together = threading.Barrier(8)

    def open_it(issue: int) -> Path:
        together.wait()
        return opened(workdirs, work(origin, issue))

    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(open_it, range(8)))
    assert len(paths) == 8
    assert all(clean(path) for path in paths)
    assert yard.counted("git_fetches_total", outcome="done") == 1


@pytest.fixture
def patient(tmp_path: Path) -> Yard:
    """A yard where waiting takes no time."""
    return Yard(tmp_path / "workdirs", ManualClock())


def test_a_workdir_is_one_runs_alone(patient: Yard, origin: Origin) -> None:
    workdirs = patient.workdirs()
    first = workdirs.open(work(origin, 1), "main", run_id="r1")
    with pytest.raises(Held, match="a run is at work for") as caught:
        patient.workdirs().open(work(origin, 2), "main")
    assert caught.value.run_id == "r1"
    first.close()
    first.close()
    assert opened(workdirs, work(origin, 2), "main") == first.path


def test_a_run_that_stands_still_loses_the_workdir_to_the_next_of_its_item(patient: Yard, origin: Origin) -> None:
    first = patient.workdirs().open(work(origin), "main", run_id="r1")
    with pytest.raises(Held):
        patient.workdirs().open(work(origin, 8), "main", run_id="r2", overtake=True)
    with pytest.raises(Held):
        patient.workdirs().open(work(origin), "main", run_id="r2")
    (first.path / "half.txt").write_text("half")
    second = patient.workdirs().open(work(origin), "main", run_id="r2", overtake=True)
    assert (second.outcome, (second.path / "half.txt").read_text()) == ("kept", "half")
    first.close()
    with pytest.raises(Held):
        patient.workdirs().open(work(origin, 8), "main", run_id="r3")
    second.close()


def test_whoever_looks_after_a_workdir_is_not_overtaken(patient: Yard, origin: Origin) -> None:
    workdir = patient.workdirs().open(work(origin), "main", run_id="r1")
    workdir.close()
    lock = patient.root.try_workdir(workdir.name)
    assert lock is not None
    with pytest.raises(Held):
        patient.workdirs(lock_timeout_s=0).open(work(origin), "main", run_id="r2", overtake=True)
    lock.release()


@pytest.mark.slow
def test_whoever_looks_after_a_workdir_is_waited_for(
    yard: Yard, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "LEAST_WAIT_S", 0.05)
    yard.workdirs().open(work(origin), "main", run_id="r1").close()
    lock = yard.root.try_workdir(yard.workdirs().path(work(origin), "main").name)
    assert lock is not None
    threading.Timer(0.5, lock.release).start()
    assert yard.workdirs().open(work(origin), "main", run_id="r2").outcome == "kept"


def test_a_run_waits_for_the_one_before_it(yard: Yard, origin: Origin) -> None:
    workdirs = yard.workdirs(wait_s=30)
    first = workdirs.open(work(origin))
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(workdirs.open, work(origin))
        first.close()
        assert second.result().path == first.path


@pytest.mark.slow
def test_a_wait_that_is_stopped_ends(yard: Yard, origin: Origin) -> None:
    first = yard.workdirs().open(work(origin))
    stop = threading.Event()
    stop.set()
    with pytest.raises(Unavailable, match="was stopped"):
        yard.workdirs(wait_s=60).open(work(origin), stop=stop)
    first.close()


@pytest.mark.slow
def test_a_process_that_is_killed_holds_nothing(yard: Yard, origin: Origin) -> None:
    tests = str(Path(__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(yard.root.path), origin.url],
        env={**inherited_environment(), "PYTHONPATH": tests},
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(Held):
            yard.workdirs().open(work(origin))
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert yard.workdirs().open(work(origin)).outcome == "kept"


def test_what_is_noted_survives(yard: Yard, origin: Origin) -> None:
    workdir = yard.workdirs().open(work(origin), "main", run_id="r1")
    record = WorkdirRecord.read(yard.root, workdir.name)
    assert record is not None
    assert (record.work_key, record.agent, record.branch, record.run_id) == (work(origin).key, "fixer", "main", "r1")
    assert record.tree(yard.root) == workdir.path
    (cache,) = CacheRecord.all(yard.root)
    assert (cache.name, cache.repo, cache.default_branch) == (record.cache, origin.url, "main")
    assert cache.repository(yard.root) == yard.cache
