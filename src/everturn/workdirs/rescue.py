"""Bringing unsaved work to safety before a workdir goes: to the remote, into the cache, or into quarantine."""

from __future__ import annotations

import json
import re
import stat
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from shlex import quote
from typing import Any

from everturn.errors import Conflict, Unavailable
from everturn.git.deleting import move
from everturn.git.locks import Lock
from everturn.git.runner import Git
from everturn.git.shadow import Shadow
from everturn.workdirs.inspection import Tips, Unsaved

KEPT = "refs/everturn/kept"
RESCUED = "refs/everturn/rescue"
SHORT = 12
NAME_LENGTH = 60
PUSHED_AT_ONCE = 500

_IDENTITY = {
    "GIT_AUTHOR_NAME": "Everturn",
    "GIT_AUTHOR_EMAIL": "everturn@example.invalid",
    "GIT_COMMITTER_NAME": "Everturn",
    "GIT_COMMITTER_EMAIL": "everturn@example.invalid",
}
# A large file goes into the commit itself: nobody would push what git-lfs puts aside for it.
_WHOLE = {"filter.lfs.clean": ""}
_PUSH = ("push", "--quiet", "--no-verify", "--no-signed", "--no-follow-tags", "--recurse-submodules=no")


def keep_pushed(
    git: Git,
    shadow: Shadow,
    cache: Path,
    name: str,
    tips: Tips,
    stop: threading.Event | None = None,
    *,
    lock: Lock | None = None,
) -> list[str]:
    """Copy commits that only the remote has into the cache, so that they outlive the branch they were pushed to.

    On return the cache has them, with all that they lead to, under refs of their own. The caller holds its lock.

    Args:
        git: Runs git.
        shadow: The workdir's.
        cache: The cache.
        name: The workdir's name.
        tips: Names and commits, as in `Unsaved.pushed_only`. Where their history ends, it ends in the cache, too.
        stop: Once it is set, git is killed within a moment.
        lock: The cache's lock, for git to hold it, too.

    Returns:
        The refs, full names.

    Raises:
        Unavailable: git failed. The cache is as it was.
    """
    wanted = {f"{KEPT}/{name}/{_plain(ref)}-{tip[:SHORT]}": tip for ref, tip in tips}
    if not wanted:
        return []
    git.run(
        [
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--recurse-submodules=no",
            "--stdin",
            "--end-of-options",
            str(shadow.path),
        ],
        cache,
        stop,
        extra={"GIT_DIR": str(cache)},
        text="".join(f"+{tip}:{ref}\n" for ref, tip in wanted.items()),
        lock=lock,
    )
    return list(wanted)


def push_rescue(
    shadow: Shadow, remote: str, name: str, stamp: str, unsaved: Unsaved, stop: threading.Event | None = None
) -> list[str]:
    """Push everything unsaved to refs of its own at the remote, and look that it is there.

    Files are put into a commit on top of HEAD, ignored ones left out; where the index differs from both, it is in
    that commit's second parent, as in a stash. The workdir stays as it is.

    Args:
        shadow: The workdir's.
        remote: Where to push to: a URL or a path.
        name: The workdir's name.
        stamp: What tells this rescue from others, such as the time; a piece of a ref's name.
        unsaved: What `inspect` has found with this shadow.
        stop: Once it is set, git is killed within a moment.

    Returns:
        The refs, full names: `refs/everturn/rescue/<name>/<stamp>/…`.

    Raises:
        Conflict: Commits cannot hold all of it. Nothing was pushed.
        Denied: The remote wants other credentials.
        Unavailable: Something is not at the remote. What was pushed stays there.
    """
    if not unsaved.can_be_pushed:
        raise Conflict(
            f"the unsaved work in {shadow.tree} cannot be pushed: {unsaved.reasons()[-1]}",
            hint="quarantine the workdir instead",
        )
    tips = dict(unsaved.tips)
    if unsaved.changed or unsaved.untracked:
        tips = {"files": _snapshot(shadow, f"Unsaved files of {name}, {stamp}", stop), **tips}
    base = f"{RESCUED}/{name}/{stamp}"
    wanted = {f"{base}/{number}-{_plain(ref)}": tip for number, (ref, tip) in enumerate(_each_once(tips), 1)}
    if not wanted:
        return []
    refspecs = [f"{tip}:{ref}" for ref, tip in wanted.items()]
    for first in range(0, len(refspecs), PUSHED_AT_ONCE):
        _ask(shadow, remote, _PUSH, refspecs[first : first + PUSHED_AT_ONCE], stop)
    answer = _ask(shadow, remote, ["ls-remote", "--quiet", "--refs"], [f"{base}/*"], stop)
    there = {ref: tip for tip, _, ref in (line.partition("\t") for line in answer.splitlines())}
    missing = [ref for ref, tip in wanted.items() if there.get(ref) != tip]
    if missing:
        raise Unavailable(
            f"{missing[0]} is not at the remote after it was pushed", hint="look what its hooks do with such refs"
        )
    return list(wanted)


def _ask(
    shadow: Shadow, remote: str, command: Sequence[str], words: Sequence[str], stop: threading.Event | None
) -> str:
    return shadow.run([*command, "--end-of-options", remote, *words], stop, online=True)


def _each_once(tips: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return names and object ids, each id under its first name only."""
    names: dict[str, str] = {}
    for name, tip in tips.items():
        names.setdefault(tip, name)
    return [(name, tip) for tip, name in names.items()]


def _plain(ref: str) -> str:
    """Return what is left of a ref's name, so that it is one piece of another one."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", ref.removeprefix("refs/heads/").removeprefix("refs/"))
    return words[:NAME_LENGTH].strip("-") or "ref"


# --- Files into a commit ------------------------------------------------------------------------------------------


def _snapshot(shadow: Shadow, message: str, stop: threading.Event | None) -> str:
    head = shadow.refs.head
    parents = [] if head is None else [head]
    staged = _staged_tree(shadow, stop)
    tree = _files_tree(shadow, stop)
    of_head = shadow.run(["rev-parse", "--verify", "--quiet", "HEAD^{tree}"], stop).strip() if head else None
    if staged is not None and staged not in (tree, of_head):
        parents.append(_commit(shadow, staged, parents, f"{message}: the index", stop))
    return _commit(shadow, tree, parents, message, stop)


def _staged_tree(shadow: Shadow, stop: threading.Event | None) -> str | None:
    """Return the index as a tree; `None` if there are conflicts in it, or it names what is not there."""
    if shadow.run(["ls-files", "--unmerged", "-z"], stop):
        return None
    return shadow.run(["write-tree"], stop, extra=_index(shadow)).strip()


def _files_tree(shadow: Shadow, stop: threading.Event | None) -> str:
    """Return the files as a tree. Not by `git add`, which starts a git in submodules."""
    index = _index(shadow)
    differing = ["diff-files", "--name-only", "-z", "--no-renames", "--ignore-submodules=all"]
    listed = shadow.run(differing, stop, extra=index, config=_WHOLE)
    untracked = shadow.run(["ls-files", "--others", "--exclude-standard", "-z"], stop, extra=index)
    names = sorted({name for name in (listed + untracked).split("\0") if name and not name.endswith("/")})
    kept = [name for name in names if _can_be_stored(shadow.tree, name)]
    zero = "0" * (64 if len(shadow.refs.head or "") == 64 else 40)
    gone = "".join(f"0 {zero}\t{name}\0" for name in sorted(set(names) - set(kept)))
    shadow.run(["update-index", "-z", "--index-info"], stop, gone, extra=index)
    text = "".join(f"{name}\0" for name in kept)
    shadow.run(["update-index", "-z", "--add", "--replace", "--stdin"], stop, text, extra=index, config=_WHOLE)
    return shadow.run(["write-tree"], stop, extra=index).strip()


def _can_be_stored(tree: Path, name: str) -> bool:
    """Tell whether there is a file or a link under this name, and no link on the way to it."""
    path = tree
    for piece in Path(name).parts[:-1]:
        path /= piece
        if path.is_symlink():
            return False
    try:
        mode = (tree / name).lstat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _index(shadow: Shadow) -> dict[str, str]:
    return {"GIT_INDEX_FILE": str(shadow.copy_index())}


def _commit(shadow: Shadow, tree: str, parents: Sequence[str], message: str, stop: threading.Event | None) -> str:
    words = [word for parent in parents for word in ("-p", parent)]
    return shadow.run(["commit-tree", tree, *words], stop, message, extra=_IDENTITY).strip()


# --- Quarantine ---------------------------------------------------------------------------------------------------


def quarantine(quarantines: Path, tree: Path, record: Mapping[str, Any], reasons: Sequence[str], stamp: str) -> Path:
    """Move a workdir away, whole, with a note. On return it is not at its place any more, and nothing of it is lost.

    The note is there before the tree is: a tree in quarantine has one, whenever we are killed.

    Args:
        quarantines: The folder of those in quarantine, on the same disk.
        tree: The workdir; the caller holds its lock.
        record: What is noted about it.
        reasons: Why, one phrase each; see `Unsaved.reasons`.
        stamp: The time, as a piece of a file's name.

    Returns:
        The folder with the note and, as `tree` in it, the workdir.

    Raises:
        Unavailable: It could not be moved; it is where it was.
    """
    try:
        folder = _fresh(quarantines, f"{tree.name}-{stamp}")
        (folder / "record.json").write_text(json.dumps(dict(record), indent=1, default=str), encoding="utf-8")
        (folder / "NOTE.md").write_text(_note(folder, tree, record, reasons, stamp), encoding="utf-8")
        try:
            move(tree, folder / "tree")
        except OSError:
            for path in (folder / "NOTE.md", folder / "record.json"):
                path.unlink()
            folder.rmdir()
            raise
    except OSError as error:
        raise Unavailable(
            f"{tree} could not be moved into quarantine: {error.strerror}", hint="check the disk and its permissions"
        ) from error
    return folder


def _fresh(quarantines: Path, name: str) -> Path:
    quarantines.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        folder = quarantines / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("there is always another number")


def _note(folder: Path, tree: Path, record: Mapping[str, Any], reasons: Sequence[str], stamp: str) -> str:
    why = "\n".join(f"- {reason}" for reason in reasons) or "- nobody has said"
    about = [("repository", "repo"), ("branch", "branch"), ("agent", "agent"), ("work item", "work_key")]
    facts = "".join(f"- {said}: `{record[key]}`\n" for said, key in about if record.get(key))
    place, here = quote(str(folder / "tree")), quote(str(folder))
    return f"""# A workdir in quarantine

An agent worked in `tree`, which was `{tree}` until {stamp}. The place was needed, or its time was over, and there is
work in it that is nowhere else, so it was moved here whole instead of being deleted. Nothing was changed in it.

{facts}
## What is unsaved

{why}

## How to get it back

The git in there obeys what the agent may have written into `tree/.git` (configuration, hooks), so have a look at it
first:

    cat {place}/.git/config; ls {place}/.git/hooks
    git -C {place} status
    git -C {place} stash list
    git -C {place} log --branches --not --remotes

To keep commits, push them under a name of your own; to keep files, commit them first, or copy them:

    git -C {place} push origin HEAD:refs/heads/rescued

To go on working with it, move it anywhere else on this machine. It borrows objects from the cache of its repository;
to make it independent of that, and before you take it to another machine:

    mv {place} ~/rescued
    git -C ~/rescued repack -a -d && rm ~/rescued/.git/objects/info/alternates

If there were linked worktrees inside it, name them, and they are found again:

    git -C {place} worktree repair {place}/.claude/worktrees/*

## How to remove it

    rm -rf {here}

Nothing else refers to this folder, and it is never deleted without being asked for.
"""
