"""Workdirs and repositories that are refused, and how repositories are spelled."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from everturn.errors import Conflict, Denied, Invalid, NotFound, Unavailable
from everturn.model import WorkItem
from everturn.workdirs import Workdir, located
from everturn.workdirs.records import WorkdirRecord
from everturn.workdirs.root import MARKER, MEASURED, SWEPT
from workdirs.yard import Origin, Yard, git, opened, work

# --- What is refused ------------------------------------------------------------------------------------------------

ODD = ["x" * 201, ".x", "x/.y", "refs/../x", "\ud800", "a\\b", "a@{1}", "x*"]


def test_a_folder_of_somebody_else_is_left_alone(yard: Yard, origin: Origin) -> None:
    yard.root.path.mkdir()
    (yard.root.path / "thesis.txt").write_text("mine")
    with pytest.raises(Conflict, match="holds files that are not ours"):
        yard.workdirs().open(work(origin))
    assert [item.name for item in yard.root.path.iterdir()] == ["thesis.txt"]


def test_a_folder_of_ours_goes_on_though_the_machine_lost_its_power(yard: Yard, origin: Origin) -> None:
    opened(yard.workdirs(), work(origin))
    marker = yard.root.path / MARKER
    said = marker.read_text()
    marker.write_text("")
    for name in (SWEPT, MEASURED, f".{SWEPT}.0123"):
        (yard.root.path / name).write_text("{}")
    opened(yard.workdirs(), work(origin))
    assert marker.read_text() == said


def test_a_folder_of_a_newer_release_is_left_alone(yard: Yard, origin: Origin) -> None:
    yard.root.path.mkdir()
    (yard.root.path / "everturn-workdirs.json").write_text('{"everturn": "workdirs", "version": 2}')
    with pytest.raises(Conflict, match="version 2"):
        yard.workdirs().open(work(origin))


def test_something_else_at_the_path_is_moved_away_whole(yard: Yard, origin: Origin) -> None:
    workdirs = yard.workdirs()
    yard.root.prepare()
    path = workdirs.path(work(origin))
    path.mkdir()
    (path / "thesis.txt").write_text("mine")
    assert opened(workdirs, work(origin)) == path
    (kept,) = yard.quarantined()
    assert (kept / "tree" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "branch",
    [
        "",
        "-x",
        "--upload-pack=touch x",
        "a..b",
        "a b",
        "x.lock",
        "/x",
        "x/",
        "a//b",
        "@",
        "HEAD",
        "a\nb",
        "~",
        "a:b",
        *ODD,
    ],
)
def test_a_branch_that_git_would_not_take_is_refused_before_anything_is_made(
    yard: Yard, origin: Origin, branch: str
) -> None:
    for refused in (yard.workdirs().open, yard.workdirs().check):
        with pytest.raises(Invalid):
            refused(work(origin), branch)
    assert not yard.root.path.exists()


@pytest.mark.parametrize(
    "repo",
    ["--upload-pack=touch x", "-x", "ext::sh -c touch% x", "fd::17", "gcrypt::https://h/x", "foo://h/x", "::x"],
)
def test_a_repository_that_would_start_a_program_is_refused(yard: Yard, repo: str) -> None:
    with pytest.raises(Invalid):
        yard.workdirs().open(WorkItem("fixer", repo, 7))
    assert not yard.root.path.exists()


def test_a_name_that_means_something_to_a_shell_is_only_a_name(yard: Yard, origin: Origin) -> None:
    branch = "a;touch$IFS'x'&&`touch`"
    origin.push({"odd.txt": "odd\n"}, branch)
    path = opened(yard.workdirs(), work(origin), branch)
    assert git(path, "branch", "--show-current") == branch
    assert (path / "odd.txt").exists()


def test_a_work_item_without_a_repository_has_no_workdir(yard: Yard) -> None:
    with pytest.raises(Invalid, match="task:t has no repository"):
        yard.workdirs().open(WorkItem.task("t"))
    assert not yard.root.path.exists()


def test_checking_makes_nothing(yard: Yard, origin: Origin, tmp_path: Path) -> None:
    yard.workdirs().check(work(origin))
    with pytest.raises(NotFound):
        yard.workdirs().check(WorkItem("fixer", str(tmp_path / "nowhere"), 7))
    assert not yard.root.path.exists()


def test_a_place_that_cannot_be_looked_at_is_refused_in_one_sentence(origin: Origin, tmp_path: Path) -> None:
    workdirs = Yard(tmp_path / ("long" * 100)).workdirs()
    workdirs.check(work(origin))
    with pytest.raises(Denied, match="File name too long"):
        workdirs.open(work(origin))
    root = Yard(tmp_path / ("long" * 100)).root
    for look in (lambda: root.is_there, lambda: list(WorkdirRecord.all(root))):
        with pytest.raises(Denied, match="cannot look at"):
            look()


@pytest.mark.parametrize("repo", ["no/such/repo", "empty"])
def test_what_cannot_be_cloned_leaves_no_workdir(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repo: str
) -> None:
    (tmp_path / "here" / "empty").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises((NotFound, Unavailable)):
        yard.workdirs().open(WorkItem("fixer", repo, 7))
    assert not list(yard.root.trees.iterdir())
    assert not list(yard.root.records.iterdir())
    assert not list((yard.root.path / "unfinished").iterdir())


def test_a_repository_with_ids_of_the_other_kind_is_refused_in_one_sentence(yard: Yard, tmp_path: Path) -> None:
    desk = tmp_path / "sha256"
    git(tmp_path, "init", "--quiet", "--object-format=sha256", "--initial-branch=main", str(desk))
    git(desk, "commit", "--quiet", "--allow-empty", "-m", "One")
    with pytest.raises(Invalid, match="SHA-256"):
        yard.workdirs().open(WorkItem("fixer", str(desk), 7))
    assert not list(yard.root.trees.iterdir())


# --- Spellings ------------------------------------------------------------------------------------------------------


def test_a_relative_path_is_the_same_repository_from_everywhere(
    yard: Yard, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(origin.path.parent)
    near = located(WorkItem("fixer", "shop", 7))
    monkeypatch.chdir(origin.path)
    assert near == located(WorkItem("fixer", ".", 7)) == located(work(origin)) == work(origin)
    assert (opened(yard.workdirs(), near) / "a.txt").exists()


@pytest.mark.parametrize("repo", ["https://example.org/shop", "no/such/folder", "git@example.org:shop", "x" * 5000])
def test_what_is_no_path_here_stays_as_it_is(repo: str) -> None:
    item = WorkItem("fixer", repo, 7)
    assert located(item) == item
    assert located(WorkItem.task("t")) == WorkItem.task("t")


def test_spellings_of_one_repository_are_one_work_item(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    path = origin.path
    monkeypatch.setenv("HOME", str(path.parent))
    spelled = (f"{path}", f"{path}/", f"{path}/.git", path.as_uri(), f"~/{path.name}")
    assert {located(WorkItem("fixer", repo, 7)).key for repo in spelled[:2] + spelled[3:]} == {f"fixer@{path}#7"}


def test_a_workdir_can_be_given_where_a_path_is_expected(yard: Yard, origin: Origin) -> None:
    workdir: Workdir = yard.workdirs().open(work(origin))
    assert os.fspath(workdir) == str(workdir.path)
    assert (Path(workdir) / "a.txt").exists()
