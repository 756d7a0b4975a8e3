"""Who needs a cache, and which folders belong to a workdir although they may lie elsewhere.

What lies in a tree was written by an agent. Nothing there is taken for granted, and git is not asked: it would obey
the configuration in it. `git worktree list` reads the same files.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from everturn.git.runner import Git
from everturn.git.untrusted import Damaged, read_plain
from everturn.housekeeping.disk import folders_in
from everturn.workdirs.inspection import linked_tree
from everturn.workdirs.records import CacheRecord, WorkdirRecord
from everturn.workdirs.rescue import KEPT
from everturn.workdirs.root import Root, read_json


def cache_of(root: Root, tree: Path) -> str | None:
    """Return the name of the cache that a tree borrows objects from; `None`: from none of ours.

    Args:
        root: Where the caches are.
        tree: The tree.
    """
    caches = os.path.realpath(root.caches)
    for place in _alternates(tree / ".git"):
        path = Path(os.path.realpath(place))
        if path.parts[-2:] == ("repo.git", "objects") and str(path.parents[2]) == caches:
            return path.parents[1].name
    return None


def borrowers(root: Root, cache: str) -> list[str]:
    """Return who would be broken without a cache: workdirs, those in quarantine, and those that are being made.

    The caller holds the cache's lock.

    Args:
        root: Where everything is.
        cache: The cache.
    """
    known = {record.name: record for record in WorkdirRecord.all(root)}
    found = [f"the workdir {record.name}" for record in known.values() if record.cache == cache]
    for tree in folders_in(root.trees):
        if tree.name not in known and cache_of(root, tree) in (cache, None):
            found.append(f"the folder trees/{tree.name}")
        elif tree.name in known and known[tree.name].cache != cache and cache_of(root, tree) == cache:
            found.append(f"the workdir {tree.name}")
    found += [f"quarantine/{each.name}" for each in folders_in(root.quarantine) if _in_quarantine(root, each, cache)]
    for folder in folders_in(root.path / "unfinished"):
        if any(cache_of(root, tree) == cache for tree in (folder, *folders_in(folder))):
            found.append(f"unfinished/{folder.name}")
    return found + [f"the worktree {tree}" for tree in linked_trees(CacheRecord(cache).repository(root))]


def _in_quarantine(root: Root, folder: Path, cache: str) -> bool:
    noted = read_json(folder / "record.json") or {}
    return noted.get("cache") == cache or cache_of(root, folder / "tree") == cache


def kept_since(git: Git, root: Root, cache: str, since: float) -> list[str]:
    """Return the refs of a cache that hold what workdirs have pushed, as far as they may be younger than a time.

    A ref does not say when it was made. It is as young as the file it is in, or its commit.

    Args:
        git: Runs git.
        root: Where the cache is.
        cache: The cache; its lock is held.
        since: Seconds since the Unix epoch.

    Raises:
        Unavailable: git failed.
    """
    repository = CacheRecord(cache).repository(root)
    lines = git.run(["for-each-ref", "--format=%(creatordate:unix) %(refname)", f"{KEPT}/"], repository).splitlines()
    found = []
    for date, ref in (line.split(" ", 1) for line in lines):
        changed = _changed_at(repository / ref) or _changed_at(repository / "packed-refs")
        if max(changed, float(date or 0)) >= since:
            found.append(ref)
    return found


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def linked_trees(git_dir: Path) -> list[Path]:
    """Return where the worktrees are that are linked to a repository, those that are gone left out.

    Args:
        git_dir: The repository's `.git`.
    """
    found = []
    for folder in folders_in(git_dir / "worktrees"):
        with suppress(Damaged, OSError, ValueError):
            tree = linked_tree(folder)
            if tree is not None:
                found.append(tree)
    return found


def _alternates(git_dir: Path) -> list[Path]:
    with suppress(Damaged, OSError, ValueError):
        lines = (read_plain(git_dir / "objects" / "info" / "alternates") or b"").splitlines()
        named = [os.fsdecode(line) for line in lines if line and not line.startswith(b"#") and b"\0" not in line]
        return [git_dir / "objects" / name for name in named]
    return []
