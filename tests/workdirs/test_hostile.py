"""Repositories that strangers have written: what is in them runs nothing, and leaves the workdir nowhere.

What agents plant is tried in test_planted.py; tokens in test_token_leaks.py.
"""

from __future__ import annotations

import os
import unicodedata
from contextlib import suppress
from pathlib import Path

import pytest

from everturn.errors import EverturnError, Invalid
from everturn.git.runner import Git
from everturn.model import RepositoryOptions, WorkItem
from everturn.settings import inherited_environment
from git.https_git import basic, serve
from workdirs.scene import fsck, scribble
from workdirs.yard import Origin, Yard, clean, git, work

pytestmark = pytest.mark.slow  # there are many of them

ODD_NAMES = [
    "-x",
    "--upload-pack=touch sprung",
    "a;rm -rf x",
    "$(touch sprung)",
    "`touch sprung`",
    "two\nlines",
    "tab\there",
    '"quoted"',
    "back\\slash",
    "*",
    "a\u2028b",
    " leading",
    "...",
    "~",
    "%n%00",
    unicodedata.normalize("NFC", "café"),
    unicodedata.normalize("NFD", "café"),
    "README",
    "readme",
    "Readme",
    "-/--/-x",
    "HEAD",
    "main",
    "origin/main",
    "refs/heads/main",
    "con",
    "x" * 255,
    "\udcff.bin",
]
TREE, FILE, LINK, MODULE = "040000", "100644", "120000", "160000"


def blob(origin: Origin, content: str) -> str:
    return git(origin.path, "hash-object", "-w", "--stdin", text=content)


def push_tree(origin: Origin, entries: list[tuple[str, str, str]], branch: str = "main") -> str:
    """Have a branch show a tree that git itself would not make, and return the commit."""
    kinds = {TREE: "tree", MODULE: "commit"}
    lines = "".join(f"{mode} {kinds.get(mode, 'blob')} {value}\t{name}\0" for mode, value, name in entries)
    tree = git(origin.path, "mktree", "-z", "--missing", text=lines)
    commit = git(origin.path, "commit-tree", "-m", "Hostile", tree)
    git(origin.path, "update-ref", f"refs/heads/{branch}", commit)
    return commit


def opened(yard: Yard, origin: Origin, branch: str = "main", *, keep: bool = False) -> Path:
    workdir = yard.workdirs().open(work(origin), branch, keep=keep)
    workdir.close()
    assert workdir.warnings == []
    return workdir.path


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that nobody may touch."""
    folder = tmp_path / "outside"
    scribble(folder / "x", b"outside")
    return folder


def is_untouched(outside: Path) -> bool:
    return [path.name for path in outside.iterdir()] == ["x"] and (outside / "x").read_bytes() == b"outside"


# --- Names ----------------------------------------------------------------------------------------------------------


def test_files_with_odd_names_are_only_files(yard: Yard, origin: Origin, tmp_path: Path) -> None:
    origin.push(dict.fromkeys(ODD_NAMES, "odd\n"))
    path = opened(yard, origin)
    for _ in range(2):
        assert all((path / name).read_text() == "odd\n" for name in ODD_NAMES)
        assert clean(path)
        assert not fsck(path)
        path = opened(yard, origin)
    assert not list(tmp_path.rglob("sprung"))
    assert not yard.quarantined()


@pytest.mark.parametrize("how", ["push", "quarantine"])
def test_unsaved_files_with_odd_names_are_rescued(yard: Yard, origin: Origin, how: str) -> None:
    path = opened(yard, origin)
    for name in ODD_NAMES:
        scribble(path / name, b"mine")
    workdir = yard.workdirs(how=how).open(work(origin), "main", keep=False)
    assert len(workdir.warnings) == 1
    if how == "push":
        (ref,) = git(origin.path, "for-each-ref", "--format=%(refname)", "refs/everturn/rescue").split()
        mine = git(origin.path, "rev-parse", f"{ref}:-x")
        assert git(origin.path, "ls-tree", "-r", ref).count(mine) == len(ODD_NAMES)
    else:
        assert all((yard.quarantined()[0] / "tree" / name).read_bytes() == b"mine" for name in ODD_NAMES)
    assert clean(path)
    assert not any(os.path.lexists(path / name) for name in ODD_NAMES)


@pytest.mark.parametrize("name", [".GIT", ".Git", "git~1", "GIT~1", ".g\u200cit", ".git.", ".git ", ".git::$INDEX"])
@pytest.mark.parametrize("reuse", [False, True])
def test_a_git_folder_in_another_spelling_is_refused(yard: Yard, origin: Origin, name: str, reuse: bool) -> None:
    if reuse:
        opened(yard, origin)
    origin.push({"good.txt": "good\n"}, "good")
    config = blob(origin, "[core]\n\tfsmonitor = touch sprung\n")
    inner = git(origin.path, "mktree", text=f"{FILE} blob {config}\tconfig\n")
    push_tree(origin, [(TREE, inner, name)])
    with pytest.raises(Invalid, match="invalid path"):
        opened(yard, origin)
    assert not list((yard.root.path / "unfinished").iterdir())
    assert yard.counted("cache_repairs_total") == 0
    assert clean(opened(yard, origin, "good"))
    git(origin.path, "update-ref", "refs/heads/main", "refs/heads/good")
    assert clean(opened(yard, origin))


def test_paths_deeper_than_the_system_takes_are_refused(yard: Yard, origin: Origin) -> None:
    name, value, mode = "d" * 200, blob(origin, "deep"), FILE
    for _ in range(60):
        value, mode = (
            git(origin.path, "mktree", text=f"{mode} {'blob' if mode == FILE else 'tree'} {value}\t{name}\n"),
            TREE,
        )
    push_tree(origin, [(mode, value, name)])
    with pytest.raises(EverturnError):
        opened(yard, origin)
    assert not list(yard.root.trees.iterdir())
    assert not list((yard.root.path / "unfinished").iterdir())


def test_two_agents_may_begin_branches_of_which_one_is_the_others_folder(yard: Yard, origin: Origin) -> None:
    workdirs = yard.workdirs()
    first = workdirs.open(work(origin, agent="one"), "feature")
    second = workdirs.open(work(origin, agent="two"), "feature/x")
    for workdir, branch in ((first, "feature"), (second, "feature/x")):
        git(workdir.path, "commit", "--quiet", "--allow-empty", "-m", branch)
        assert git(workdir.path, "branch", "--show-current") == branch


@pytest.mark.parametrize("branch", ["Feature", "FEATURE", "café", "cafe\u0301", "a;rm -rf", "$(touch x)", "-", "x-"])
def test_branches_with_odd_names_are_taken_or_refused(yard: Yard, origin: Origin, branch: str) -> None:
    try:
        path = opened(yard, origin, branch)
    except Invalid:
        assert not yard.root.path.exists()
        return
    assert git(path, "branch", "--show-current") == branch
    assert not fsck(path)


# --- Links ----------------------------------------------------------------------------------------------------------


def test_a_link_that_becomes_a_folder_writes_nothing_outside(yard: Yard, origin: Origin, outside: Path) -> None:
    inside = git(origin.path, "mktree", text=f"{FILE} blob {blob(origin, 'theirs')}\tx\n")
    for entry in ((LINK, blob(origin, str(outside)), "out"), (TREE, inside, "out")) * 2:
        push_tree(origin, [entry])
        path = opened(yard, origin)
        assert (path / "out").is_symlink() is (entry[0] == LINK)
        assert is_untouched(outside)
        assert clean(path)


def test_a_link_and_a_folder_of_one_name_in_one_commit_write_nothing_outside(
    yard: Yard, origin: Origin, outside: Path
) -> None:
    inside = git(origin.path, "mktree", text=f"{FILE} blob {blob(origin, 'theirs')}\tx\n")
    push_tree(origin, [(LINK, blob(origin, str(outside)), "out"), (TREE, inside, "out")])
    with suppress(EverturnError):
        opened(yard, origin)
    assert is_untouched(outside)


@pytest.mark.parametrize(
    "where", ["lib", "a.txt", "new", "build", "x.o", ".git/info", ".git/hooks", ".git/logs", ".git/refs"]
)
@pytest.mark.parametrize("options", [RepositoryOptions(), RepositoryOptions(keep_ignored=False)])
def test_links_that_an_agent_made_are_followed_nowhere(
    yard: Yard, origin: Origin, outside: Path, where: str, options: RepositoryOptions
) -> None:
    yard.options[origin.url] = options
    path = opened(yard, origin)
    if os.path.lexists(path / where):
        (path / where).rename(path.parent.parent / "moved")
    (path / where).symlink_to(outside)
    origin.push({"lib/x": "theirs", "new/x": "theirs", "build/x": "theirs"})
    for keep in (True, False):
        yard.workdirs().open(work(origin), "main", keep=keep).close()
        assert is_untouched(outside)
    assert (path / "lib/x").read_text() == "theirs"
    for kept in yard.quarantined():
        yard.root.discard(kept)
    yard.root.empty_trash()
    assert is_untouched(outside)


# --- Attributes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attributes",
    [
        "*.txt working-tree-encoding=UTF-16",
        "*.txt working-tree-encoding=no-such-thing",
        "* ident export-subst",
        "* text eol=crlf",
        "* text",
        "* filter=lfs diff=lfs merge=lfs -text",
        "* filter=evil",
        "[attr]x filter=evil\n* x",
        '"unfinished',
        "* " + "x" * 5000,
    ],
)
def test_attributes_change_files_at_most(yard: Yard, origin: Origin, attributes: str) -> None:
    """And what git itself makes of them does not count as an agent's work."""
    origin.push({"r.txt": "one\r\ntwo\r\n", "n.txt": "one\ntwo\n$Id$\n"})
    attribute = git(origin.path, "hash-object", "-w", "--stdin", text=f"{attributes}\n")
    entries = git(origin.path, "ls-tree", "main").splitlines()
    base = [(line.split()[0], line.split()[2], line.split("\t")[1]) for line in entries]
    for _ in range(3):
        push_tree(origin, [*base, (FILE, attribute, ".gitattributes")])
        path = opened(yard, origin)
        assert (path / "r.txt").exists()
        base.append((FILE, blob(origin, str(len(base))), f"{len(base)}.txt"))
    assert not yard.quarantined()


# --- Submodules -----------------------------------------------------------------------------------------------------

MODULES = {
    "a program": '[submodule "m"]\n path = m\n url = "ext::sh -c touch% {sprung}"\n',
    "an option": '[submodule "m"]\n path = m\n url = "--upload-pack=touch {sprung}"\n',
    "an option of ssh": '[submodule "m"]\n path = m\n url = "ssh://-oProxyCommand=touch% {sprung}/x"\n',
    "an update": '[submodule "m"]\n path = m\n url = {private}\n update = !touch {sprung}\n',
    "a name that climbs": '[submodule "../../../../outside/m"]\n path = m\n url = {private}\n',
    "a name in git's folder": '[submodule "../hooks"]\n path = m\n url = {private}\n',
    "a path that climbs": '[submodule "m"]\n path = ../../../outside/m\n url = {private}\n',
    "a path into git's folder": '[submodule "m"]\n path = .git/hooks\n url = {private}\n',
    "a path that is an option": '[submodule "m"]\n path = -m\n url = {private}\n',
    "a line end": '[submodule "m"]\n path = "m\r"\n url = {private}\n',
    "the disk": '[submodule "m"]\n path = m\n url = {private}\n',
    "the disk, as a URL": '[submodule "m"]\n path = m\n url = file://{private}\n',
    "the disk, from here": '[submodule "m"]\n path = m\n url = ../../../..{private}\n',
}


@pytest.mark.parametrize("modules", MODULES)
def test_submodules_start_nothing_and_read_nothing_from_this_machine(
    yard: Yard, tmp_path: Path, outside: Path, modules: str
) -> None:
    private = Origin(tmp_path / "private", {"secret.txt": "secret\n"})
    public = Origin(tmp_path / "served" / "shop", {"a.txt": "a\n"})
    head = private.has("refs/heads/main") or ""
    text = MODULES[modules].format(sprung=tmp_path / "sprung", private=private.path)
    path = text.split("path = ")[1].split("\n")[0].strip('"')
    tree = [(FILE, blob(public, text), ".gitmodules")]
    if "/" not in path:
        tree.append((MODULE, head, path))
    commit = push_tree(public, tree)
    with serve(tmp_path / "served", None) as host:
        host.passwords.add("x")
        scribble(tmp_path / "operators", f"[http]\n extraHeader = Authorization: Basic {basic('u', 'x')}\n".encode())
        yard.git = Git(inherited_environment(), timeout_s=60, config_file=tmp_path / "operators")
        url = f"{host.url}/shop"
        yard.options[url] = RepositoryOptions(submodules=True)
        item = WorkItem("fixer", url, 7)
        try:
            opened_path = yard.workdirs().open(item, "main").path
            assert git(opened_path, "rev-parse", "HEAD") == commit
        except EverturnError:
            assert not list((yard.root.path / "unfinished").iterdir())
        yard.options[url] = RepositoryOptions()
        without = yard.workdirs().open(WorkItem("tester", url, 7), "main")
    assert git(without.path, "rev-parse", "HEAD") == commit
    assert not (tmp_path / "sprung").exists()
    assert is_untouched(outside)
    assert not list(yard.root.path.rglob("secret.txt"))
    # Nor is it in any pack.
    for git_dir in (found.parent for found in yard.root.path.rglob("HEAD") if (found.parent / "objects").is_dir()):
        assert head not in git(git_dir, "--git-dir=.", "cat-file", "--batch-check", "--batch-all-objects")


def test_a_repository_on_this_machine_may_have_submodules_there(yard: Yard, origin: Origin, tmp_path: Path) -> None:
    module = Origin(tmp_path / "module", {"m.txt": "m\n"})
    text = f'[submodule "m"]\n path = m\n url = {module.url}\n'
    push_tree(origin, [(FILE, blob(origin, text), ".gitmodules"), (MODULE, module.has("refs/heads/main") or "", "m")])
    yard.options[origin.url] = RepositoryOptions(submodules=True)
    assert (opened(yard, origin) / "m/m.txt").read_text() == "m\n"


# --- What a remote says ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lie",
    ["refs/heads/../../../x", "refs/heads/.lock.lock", "refs/heads/\x1b[31mred\x07", "HEAD\0........agent", "/" * 21],
)
def test_a_default_branch_that_git_would_not_take_is_none(yard: Yard, tmp_path: Path, lie: str) -> None:
    truth = "refs/heads/default-br"
    public = Origin(tmp_path / "served" / "shop", {"a.txt": "a\n"})
    git(public.path, "update-ref", truth, "refs/heads/main")
    git(public.path, "symbolic-ref", "HEAD", truth)
    with serve(tmp_path / "served", None) as host:
        host.passwords.add("x")
        host.lies[f"symref-target:{truth}".encode()] = f"symref-target:{lie.ljust(len(truth), 'x')}".encode()
        scribble(tmp_path / "operators", f"[http]\n extraHeader = Authorization: Basic {basic('u', 'x')}\n".encode())
        yard.git = Git(inherited_environment(), timeout_s=60, config_file=tmp_path / "operators")
        path = yard.workdirs().open(WorkItem("fixer", f"{host.url}/shop", 7)).path
    assert git(path, "rev-parse", "HEAD") == public.has("refs/heads/main")
    assert clean(path)
    assert not fsck(path)


def test_what_a_remote_says_when_it_refuses_does_nothing_to_a_terminal(yard: Yard, origin: Origin) -> None:
    scribble(origin.path / "config", b"[x\x1b]0;evil\x07\xff\n")
    with pytest.raises(EverturnError) as caught:
        opened(yard, origin)
    assert str(caught.value).isprintable()
