"""Looking at a workdir runs nothing that an agent has left in it, and is not misled by it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from everturn.git.shadow import Shadow
from everturn.settings import inherited_environment
from everturn.workdirs.inspection import Unsaved, inspect
from everturn.workdirs.rescue import keep_pushed, push_rescue
from workdirs.left_behind import LeftBehind, Trap, names

HOOKS = (
    "applypatch-msg",
    "pre-commit",
    "post-commit",
    "pre-push",
    "post-checkout",
    "post-merge",
    "pre-rebase",
    "post-rewrite",
    "post-index-change",
    "reference-transaction",
    "pre-auto-gc",
    "fsmonitor-watchman",
    "push-to-checkout",
    "pre-receive",
    "update",
    "proc-receive",
)

# How the keys end whose values git starts, or looks for programs in.
NAMES_PROGRAM = re.compile(
    r"(command|cmd|program|editor|pager|helper|hook|path|askpass|proxy|driver|textconv|external|clean|smudge|process"
    r"|fsmonitor|browser|tunnel|pack|vcs|filter|dir|update|file|pager\.<cmd>|alias\.\*)$",
    re.IGNORECASE,
)
# What the help does not list, or what only lets the others work.
MORE = {
    "filter.evil.process": "{trap}",
    "filter.evil.required": "true",
    "alias.status": "!{trap}",
    "alias.cat-file": "!{trap}",
    "alias.rev-list": "!{trap}",
    "alias.push": "!{trap}",
    "submodule.evil.update": "!{trap}",
    "tar.evil.command": "{trap}",
    "trailer.evil.cmd": "{trap}",
    "trailer.evil.command": "{trap}",
    "gpg.ssh.program": "{trap}",
    "core.virtualFilesystem": "{trap}",
    "commit.gpgSign": "true",
    "tag.gpgSign": "true",
    "push.gpgSign": "true",
    "log.showSignature": "true",
    "diff.external": "{trap}",
    "protocol.allow": "always",
    "protocol.ext.allow": "always",
    "url.ext::{trap} .insteadOf": "/",
    "remote.origin.url": "ext::{trap}",
    "remote.origin.pushurl": "ext::{trap}",
    "remote.origin.promisor": "true",
    "core.untrackedCache": "true",
    "core.useBuiltinFSMonitor": "true",
    "fetch.recurseSubmodules": "true",
    "push.recurseSubmodules": "on-demand",
    "status.submoduleSummary": "true",
    "diff.ignoreSubmodules": "none",
    "submodule.recurse": "true",
    "include.path": "{included}",
}


def program_keys() -> list[str]:
    """Return the keys that git itself lists, and that name programs."""
    listed = subprocess.run(
        ["git", "help", "--config"], env=inherited_environment(), capture_output=True, text=True, check=True
    ).stdout.split()
    return [re.sub(r"<[a-z]+>|\*", "evil", key) for key in listed if "." in key and NAMES_PROGRAM.search(key)]


def hostile_config(left: LeftBehind, trap: Trap) -> str:
    included = left.folder / "included"
    included.write_text(f"[core]\n\tfsmonitor = {trap.program}\n")
    lines = []
    for key, value in {**dict.fromkeys(program_keys(), "{trap}"), **MORE}.items():
        if key.startswith(("include", "core.repositoryFormat", "extensions")) and key != "include.path":
            continue
        section, _, rest = key.format(trap=trap.program).partition(".")
        middle, _, name = rest.rpartition(".")
        head = f'[{section} "{middle}"]' if middle else f"[{section}]"
        lines.append(f"{head}\n\t{name} = {value.format(trap=trap.program, included=included)}\n")
    return "".join(lines)


def set_traps(left: LeftBehind, git_dir: Path, trap: Trap) -> None:
    with (git_dir / "config").open("a") as file:
        file.write("[extensions]\n\tworktreeConfig = true\n")
        file.write(hostile_config(left, trap))
    (git_dir / "config.worktree").write_text(hostile_config(left, trap))
    (git_dir / "info").mkdir(exist_ok=True)
    (git_dir / "info" / "attributes").write_text("* filter=evil diff=evil merge=evil\n")
    (git_dir / "hooks").mkdir(exist_ok=True)
    for hook in HOOKS:
        (git_dir / "hooks" / hook).unlink(missing_ok=True)
        (git_dir / "hooks" / hook).symlink_to(trap.program)


def all_over(left: LeftBehind, trap: Trap) -> None:
    """Set traps in the workdir, in its attributes, in the home folder, and in where else git looks."""
    set_traps(left, left.git_dir, trap)
    left.write(".gitattributes", "* filter=evil diff=evil merge=evil\n")
    home = Path.home()
    (home / ".gitconfig").write_text(hostile_config(left, trap))
    (home / ".config" / "git").mkdir(parents=True)
    (home / ".config" / "git" / "config").write_text(hostile_config(left, trap))
    (home / ".config" / "git" / "attributes").write_text("* filter=evil diff=evil\n")


def test_git_lists_the_keys_that_we_know_of() -> None:
    keys = {key.lower() for key in program_keys()}
    assert keys >= {
        "core.fsmonitor",
        "core.hookspath",
        "core.sshcommand",
        "core.pager",
        "core.gitproxy",
        "core.alternaterefscommand",
        "diff.external",
        "diff.evil.textconv",
        "diff.evil.command",
        "filter.evil.clean",
        "merge.evil.driver",
        "gpg.program",
        "gpg.evil.program",
        "credential.helper",
        "uploadpack.packobjectshook",
        "remote.evil.uploadpack",
        "remote.evil.receivepack",
        "include.path",
        "alias.evil",
        "pager.evil",
        "sequence.editor",
        "interactive.difffilter",
        "init.templatedir",
    }


def test_the_traps_work_where_git_is_used_as_anybody_would(left: LeftBehind) -> None:
    trap = left.trap()
    left.agent("config", "core.fsmonitor", str(trap.program))
    subprocess.run(["git", "status"], cwd=left.tree, env=inherited_environment(), capture_output=True, check=False)
    assert trap.ran


def test_nothing_that_an_agent_has_configured_runs(left: LeftBehind) -> None:
    trap = left.trap()
    pushed = left.commit()
    left.agent("push", "--quiet", "origin", "HEAD:refs/heads/topic")
    left.agent("branch", "topic")
    left.commit()
    left.write("a.txt", "stashed\n")
    left.agent("stash")
    left.write("b.txt", "changed\n")
    left.write("new.txt")
    all_over(left, trap)
    with left.shadow() as shadow:
        found = inspect(shadow, left.cache)
        assert (found.changed, found.untracked, found.stash, found.damage) == (1, 2, 1, None)
        assert found.pushed_only == (("refs/heads/topic", pushed),)
        keep_pushed(left.git, shadow, left.cache, "shop-1", found.pushed_only)
        refs = push_rescue(shadow, str(left.remote), "shop-1", "now", found)
    assert len(refs) == 3
    assert not trap.ran


@pytest.mark.parametrize("place", ["tools/tool", ".claude/worktrees/x", "vendor/tool"])
def test_nothing_that_was_configured_in_a_repository_inside_runs(left: LeftBehind, place: str) -> None:
    trap = left.trap()
    if place == "tools/tool":
        left.agent("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(left.remote), place)
        left.agent("commit", "--quiet", "-m", "Tool")
        git_dir = left.git_dir / "modules" / place
    elif place == "vendor/tool":
        left.agent("clone", "--quiet", str(left.remote), place)
        git_dir = left.tree / place / ".git"
    else:
        left.agent("worktree", "add", "--quiet", "-b", "x", place)
        git_dir = left.git_dir / "worktrees" / "x"
        left.agent("config", "extensions.worktreeConfig", "true")
    (left.tree / place / "a.txt").write_text("changed\n")
    left.write("new.txt")
    set_traps(left, git_dir, trap)
    assert left.look().nested == (place,)
    with left.shadow() as shadow:
        found = Unsaved(untracked=1)  # as if nobody had looked inside
        push_rescue(shadow, str(left.remote), "shop-1", "now", found)
    assert not trap.ran


def format_of_the_future(left: LeftBehind) -> None:
    left.agent("config", "core.repositoryFormatVersion", "99")


def unknown_extension(left: LeftBehind) -> None:
    left.agent("config", "core.repositoryFormatVersion", "1")
    left.agent("config", "extensions.unheardOf", "true")


def another_object_format(left: LeftBehind) -> None:
    left.agent("config", "core.repositoryFormatVersion", "1")
    left.agent("config", "extensions.objectFormat", "sha256")


def garbage(left: LeftBehind) -> None:
    (left.git_dir / "config").write_bytes(b"\xff[[[")


def a_pipe(left: LeftBehind) -> None:
    (left.git_dir / "description").unlink(missing_ok=True)
    (left.git_dir / "config").unlink()
    (left.git_dir / "config").symlink_to("/dev/zero")


def bare(left: LeftBehind) -> None:
    left.agent("config", "core.bare", "true")


def elsewhere(left: LeftBehind) -> None:
    left.agent("config", "core.worktree", str(left.folder / "start"))


@pytest.mark.parametrize(
    "configure", [format_of_the_future, unknown_extension, another_object_format, garbage, a_pipe, bare, elsewhere]
)
def test_what_the_configuration_says_of_the_repository_is_not_heard(
    left: LeftBehind, configure: Callable[[LeftBehind], None]
) -> None:
    tip = left.commit()
    left.write("new.txt")
    configure(left)
    found = left.look()
    assert (found.tips, found.untracked, found.damage) == ((("refs/heads/main", tip),), 1, None)


def test_a_forged_object_does_not_stand_for_one_of_the_cache(left: LeftBehind) -> None:
    tree = left.agent("rev-parse", "HEAD:lib")
    left.write("lib/c.txt", "changed\n")
    left.agent("add", "lib")
    other = left.agent("rev-parse", f"{left.agent('write-tree')}:lib")
    forged = left.git_dir / "objects" / tree[:2] / tree[2:]
    forged.parent.mkdir(exist_ok=True)
    forged.write_bytes((left.git_dir / "objects" / other[:2] / other[2:]).read_bytes())
    assert left.look().changed == 1


def test_variables_do_not_lead_the_shadow_elsewhere(left: LeftBehind, monkeypatch: pytest.MonkeyPatch) -> None:
    left.write("new.txt")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"):
        monkeypatch.setenv(name, str(left.folder / "start"))
    assert left.look() == Unsaved(untracked=1)


def test_a_shadow_goes_when_it_is_not_needed_any_more(left: LeftBehind) -> None:
    with left.shadow() as shadow:
        assert list(left.ours.iterdir()) == [shadow.path]
    assert list(left.ours.iterdir()) == []


def test_git_finds_its_way_when_paths_are_odd(left: LeftBehind, tmp_path: Path) -> None:
    odd = tmp_path / "a b:c'd\"e#f"
    left.folder.rename(odd)
    moved = LeftBehind(odd)
    (moved.git_dir / "objects" / "info" / "alternates").write_text(f"{moved.cache / 'objects'}\n")
    assert moved.look() == Unsaved()
    tip = moved.commit()
    assert moved.look().tips == (("refs/heads/main", tip),)


def test_repositories_with_longer_ids_are_understood(tmp_path: Path, left: LeftBehind) -> None:
    cache, tree = tmp_path / "cache.git", tmp_path / "tree"
    left.agent("init", "--quiet", "--bare", "--object-format=sha256", str(cache))
    left.agent("init", "--quiet", "--object-format=sha256", "--initial-branch=main", str(tree))
    (tree / ".git" / "objects" / "info" / "alternates").write_text(f"{cache / 'objects'}\n")
    tip = left.commit(at=tree)
    (tree / "work.txt").write_text("changed\n")
    with Shadow.of(left.git, tree, cache / "objects", left.ours, sha256=True) as shadow:
        found = inspect(shadow, cache)
    assert (found.changed, found.tips, found.damage) == (1, (("refs/heads/main", tip),), None)
    with Shadow.of(left.git, tree, cache / "objects", left.ours) as shadow:
        assert inspect(shadow, cache).damage


def test_objects_that_we_write_stay_with_us(left: LeftBehind) -> None:
    before = sorted(os.walk(left.git_dir / "objects"))
    with left.shadow() as shadow:
        shadow.run(["hash-object", "-w", "--stdin"], text="ours\n")
    assert sorted(os.walk(left.git_dir / "objects")) == before


def test_a_tracking_branch_that_names_nothing_is_passed_over(left: LeftBehind) -> None:
    left.commit()
    (left.git_dir / "refs" / "remotes" / "origin").mkdir(parents=True, exist_ok=True)
    (left.git_dir / "refs" / "remotes" / "origin" / "x").write_text("0123456789" * 4)
    assert names(left.look().tips) == ["refs/heads/main"]
