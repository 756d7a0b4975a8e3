"""An agent cannot make us, or another agent, run its code through the cache or through its own workdir.

A program is planted under every key of git's configuration that names one, and as every hook: in the agent's own
workdir, in the cache, and in the home that we share with the agent. Then all is done that we do, and what another
agent does in a workdir of its own. The program must not have run.

An agent that runs as the same user can write into another one's workdir, or into our own program, directly. Against
that only another user, or a container, helps; it is not what is tried here.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from everturn.git.runner import Git
from everturn.housekeeping.removal import Removal
from everturn.settings import inherited_environment
from everturn.workdirs import Workdir
from everturn.workdirs.records import WorkdirRecord
from everturn.workdirs.rescuer import Rescuer
from workdirs.scene import Scene, scribble
from workdirs.yard import PERSON, Origin, Yard, git, work

pytestmark = pytest.mark.slow  # there are many of them

# {trap} is a program, {folder} holds programs with the names of hooks, {other} is a repository of the agent's.
PROGRAMS = """
[core]
    repositoryFormatVersion = 1
    hooksPath = {folder}
    fsmonitor = {trap}
    sshCommand = {trap}
    gitProxy = {trap}
    askPass = {trap}
    editor = {trap}
    pager = {trap}
    alternateRefsCommand = {trap}
    attributesFile = {folder}/attributes
    untrackedCache = true
[credential]
    helper = "!{trap}"
[credential "https://127.0.0.1:9"]
    helper = {trap}
[diff]
    external = {trap}
    tool = x
    guitool = x
[diff "x"]
    command = {trap}
    textconv = {trap}
[difftool "x"]
    cmd = {trap}
    path = {trap}
[mergetool "x"]
    cmd = {trap}
    path = {trap}
[merge]
    tool = x
[merge "x"]
    driver = {trap}
[filter "x"]
    clean = {trap}
    smudge = {trap}
    process = {trap}
    required = true
[filter "lfs"]
    clean = {trap}
    smudge = {trap}
    process = {trap}
[gpg]
    program = {trap}
    format = ssh
[gpg "openpgp"]
    program = {trap}
[gpg "x509"]
    program = {trap}
[gpg "ssh"]
    program = {trap}
    defaultKeyCommand = {trap}
[commit]
    gpgSign = true
[tag]
    gpgSign = true
[push]
    gpgSign = if-asked
[log]
    showSignature = true
[interactive]
    diffFilter = {trap}
[pager]
    status = {trap}
    log = {trap}
    diff = {trap}
[sequence]
    editor = {trap}
[uploadpack]
    packObjectsHook = {trap}
[receive]
    procReceiveRefs = refs
[gc]
    recentObjectsHook = {trap}
    auto = 1
[hook "x"]
    command = {trap}
    event = post-checkout
    event = reference-transaction
[remote "origin"]
    uploadpack = {trap}
    receivepack = {trap}
    proxy = 127.0.0.1:9
[remote "evil"]
    url = "ext::{trap}"
    vcs = x
    promisor = true
    fetch = +refs/*:refs/*
[extensions]
    partialClone = evil
    worktreeConfig = true
[submodule]
    recurse = true
    alternateLocation = superproject
[submodule "x"]
    update = "!{trap}"
    url = "ext::{trap}"
    active = true
[status]
    submoduleSummary = true
[fetch]
    recurseSubmodules = true
[protocol]
    allow = always
[protocol "ext"]
    allow = always
[url "ext::{trap} "]
    insteadOf = https://
    pushInsteadOf = /
[alias]
    status = "!{trap}"
    reset = "!{trap}"
    fetch = "!{trap}"
[trailer "x"]
    command = {trap}
    cmd = {trap}
[tar "x"]
    command = {trap}
[browser "x"]
    cmd = {trap}
    path = {trap}
[man "x"]
    cmd = {trap}
[init]
    templateDir = {other}
[lfs]
    fetchexclude = x
[lfs "customtransfer.x"]
    path = {trap}
[sendemail]
    sendmailCmd = {trap}
[imap]
    tunnel = {trap}
[include]
    path = {folder}/included
[includeIf "gitdir:/"]
    path = {folder}/included
"""
HOOKS = (
    *("applypatch-msg", "commit-msg", "fsmonitor-watchman", "post-applypatch", "post-checkout", "post-commit"),
    *("post-index-change", "post-merge", "post-receive", "post-rewrite", "post-update", "pre-applypatch"),
    *("pre-auto-gc", "pre-commit", "pre-merge-commit", "pre-push", "pre-rebase", "pre-receive", "proc-receive"),
    *("prepare-commit-msg", "push-to-checkout", "reference-transaction", "sendemail-validate", "update"),
)


class Trap:
    """A program that must not run, under all names.

    Args:
        folder: Where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "trap"
        self._sprung = folder.with_name("sprung")
        for name in ("trap", "git-remote-x", *HOOKS):
            scribble(folder / name, f'#!/bin/sh\necho "$0 $*" >> {self._sprung}\ncat 2>/dev/null\n'.encode())
            (folder / name).chmod(0o755)
        scribble(folder / "attributes", b"* filter=x diff=x merge=x\n")
        scribble(folder / "included", f"[core]\n\tfsmonitor = {self.program}\n\thooksPath = {folder}\n".encode())
        self.config = PROGRAMS.format(trap=self.program, folder=folder, other=folder / "template")
        self.plant(folder / "template")

    def plant(self, git_dir: Path) -> None:
        """Plant it in a git folder, wherever git may look."""
        for name in ("config", "config.worktree"):
            there = (git_dir / name).read_bytes() if (git_dir / name).exists() else b""
            scribble(git_dir / name, there + self.config.encode())
        scribble(git_dir / "info/attributes", b"* filter=x diff=x merge=x\n")
        for name in HOOKS:
            scribble(git_dir / "hooks" / name, (self.folder / name).read_bytes())
            (git_dir / "hooks" / name).chmod(0o755)

    def said(self) -> str:
        """Return what ran."""
        return self._sprung.read_text() if self._sprung.exists() else ""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path / "trap")


@pytest.fixture
def scene(yard: Yard, origin: Origin, home: Path, trap: Trap) -> Scene:
    """The remote has attributes that name the agent's drivers."""
    environment = {**inherited_environment(), "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}
    path = f"{trap.folder}:{environment['PATH']}"  # for git-remote-x
    yard.git = Git({**environment, "PATH": path}, timeout_s=60)
    origin.push({".gitattributes": "* filter=x diff=x merge=x\n*.bin filter=lfs\n", "big.bin": "pointer"})
    return Scene(yard, origin)


def in_the_workdir(scene: Scene, trap: Trap, _: Path) -> None:
    trap.plant(scene.tree / ".git")
    trap.plant(scene.tree / ".git/worktrees/x")


def in_the_cache(scene: Scene, trap: Trap, _: Path) -> None:
    trap.plant(scene.cache)
    trap.plant(scene.cache / "worktrees/x")
    scribble(scene.cache / "objects/info/alternates", f"{trap.folder}/template/objects\n".encode())
    for name in ("objects", "refs"):
        (trap.folder / "template" / name).mkdir(exist_ok=True)
    scribble(trap.folder / "template/HEAD", b"ref: refs/heads/main\n")
    scribble(scene.cache / "refs/heads/none", b"1" * 40 + b"\n")


def in_the_caches_folder_for_another(scene: Scene, trap: Trap, _: Path) -> None:
    trap.plant(trap.folder / "template")
    scribble(scene.cache / "commondir", f"{trap.folder}/template\n".encode())


def in_the_home(_: Scene, trap: Trap, home: Path) -> None:
    for name in (".gitconfig", ".config/git/config"):
        scribble(home / name, trap.config.encode())
    scribble(home / ".config/git/attributes", b"* filter=x diff=x merge=x\n")
    scribble(home / ".config/git/ignore", b"*\n")


PLACES = [in_the_workdir, in_the_cache, in_the_caches_folder_for_another, in_the_home]


def test_the_trap_works(scene: Scene, trap: Trap, home: Path) -> None:
    in_the_workdir(scene, trap, home)
    (scene.tree / "a.txt").write_text("changed")
    subprocess.run(["git", "status"], cwd=scene.tree, env=PERSON, capture_output=True, check=False)
    assert "trap" in trap.said()


def _kept(scene: Scene) -> None:
    assert scene.open(keep=True).outcome == "kept"


def _begun(scene: Scene) -> None:
    scene.origin.push({"new.txt": "new\n"}, "feature")
    assert scene.open(keep=False).outcome in ("new", "reused")


def _in_quarantine(scene: Scene) -> None:
    (scene.tree / "mine.txt").write_text("mine")
    (scene.tree / "a.txt").write_text("changed")
    assert len(_opened(scene).warnings) == 1
    assert len(scene.yard.quarantined()) == 1


def _pushed(scene: Scene) -> None:
    (scene.tree / "mine.txt").write_text("mine")
    (scene.tree / "a.txt").write_text("changed")
    assert len(_opened(scene, how="push").warnings) == 1
    assert git(scene.origin.path, "for-each-ref", "refs/everturn/rescue") or scene.yard.quarantined()


def _opened(scene: Scene, how: str = "quarantine") -> Workdir:
    workdir = scene.yard.workdirs(how=how).open(scene.item, scene.branch, keep=False)
    workdir.close()
    return workdir


def _for_others(scene: Scene) -> None:
    for branch in (None, "main", "feature", "new"):
        path = scene.yard.workdirs().open(work(scene.origin, agent="third"), branch).path
        assert not git(path, "status", "--porcelain")


def _pushed_only(scene: Scene) -> None:
    """What the agent has pushed and the remote has forgotten goes into the cache."""
    plain = {"core.hooksPath": "/dev/null", "commit.gpgSign": "false"}
    options = [word for key, value in plain.items() for word in ("-c", f"{key}={value}")]
    git(scene.neighbour, *options, "commit", "--quiet", "--allow-empty", "-m", "Pushed")
    git(scene.neighbour, *options, "push", "--quiet", "origin", "HEAD:gone")
    scene.origin.delete("gone")
    item = work(scene.origin, agent="tester")
    assert scene.yard.workdirs().open(item, scene.branch, keep=False).outcome == "reused"


def _removed(scene: Scene) -> None:
    """The same when a workdir goes, and then its cache is looked at."""
    name = scene.neighbour.name
    plain = {"core.hooksPath": "/dev/null", "commit.gpgSign": "false"}
    options = [word for key, value in plain.items() for word in ("-c", f"{key}={value}")]
    git(scene.neighbour, *options, "commit", "--quiet", "--allow-empty", "-m", "Pushed")
    git(scene.neighbour, *options, "push", "--quiet", "origin", "HEAD:gone")
    yard = scene.yard
    rescuer = Rescuer(yard.root, yard.git, how="quarantine", metrics=yard.metrics)
    removal = Removal(yard.root, yard.git, rescuer=rescuer, metrics=yard.metrics)
    assert removal.remove(name, "reset").action in ("removed", "kept")  # kept: a broken ref is in the cache
    for record in WorkdirRecord.all(yard.root):
        removal.remove(record.name, "reset", force=True)
    assert removal.remove_cache(scene.cache.parent.name, "expired").action in ("kept", "removed")


def _damaged(scene: Scene) -> None:
    scene.packs("idx")[0].unlink()
    scene.open(keep=True)
    scene.open(keep=False)


DONE = [_kept, _begun, _in_quarantine, _pushed, _for_others, _pushed_only, _removed, _damaged]


@pytest.mark.parametrize("done", DONE, ids=lambda done: done.__name__.strip("_"))
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_nothing_that_an_agent_planted_runs_in_what_we_do(  # type: ignore[no-untyped-def]
    scene: Scene, trap: Trap, home: Path, place, done
) -> None:
    place(scene, trap, home)
    done(scene)
    assert trap.said() == ""


@pytest.mark.parametrize("place", PLACES[:-1], ids=lambda place: place.__name__)
def test_nothing_that_an_agent_planted_runs_in_what_another_agent_does(  # type: ignore[no-untyped-def]
    scene: Scene, trap: Trap, home: Path, place
) -> None:
    place(scene, trap, home)
    scene.origin.push({"new.txt": "new\n"}, "feature")
    desk = scene.neighbour
    (desk / "a.txt").write_text("mine\n")
    for command in (
        "status",
        "diff",
        "stash",
        "fetch --quiet",
        "pull --quiet --rebase",
        "stash pop",
        "commit --quiet -am Mine",
        "log --stat",
        "push --quiet origin HEAD:theirs",
        "fetch --all --prune --tags --quiet",
        "gc --quiet",
        "repack --quiet -a -d",
        "submodule --quiet update --init",
        "worktree add --quiet ../x",
    ):
        git(desk, *command.split())
    assert trap.said() == ""
