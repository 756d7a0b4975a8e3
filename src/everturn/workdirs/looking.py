"""What git says of a tree, asked through a shadow: which files differ, and which commits no remote has."""

from __future__ import annotations

import filecmp
import threading
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from everturn.errors import Invalid, Unavailable
from everturn.git.shadow import Refs, Shadow
from everturn.git.untrusted import Damaged, readable, real

REMOTES = "refs/remotes/"
GITLINK = "160000"

_STATUS = (
    "status",
    "--porcelain=v2",
    "-z",
    "--untracked-files=normal",
    "--ignore-submodules=all",  # it would start a git in them, which reads their configuration
    "--no-renames",
)


@dataclass
class Files:
    """How the files of a tree differ from its commit.

    Attributes:
        changed: How many that are tracked.
        untracked: How many that are not, nor ignored; a folder with nothing tracked in it is one.
        ignored: Files and folders that are ignored, if that was asked for; folders end with a slash.
        gitlinks: Where submodules belong, and the commits that are recorded for them.
    """

    changed: int = 0
    untracked: int = 0
    ignored: list[str] = field(default_factory=list)
    gitlinks: dict[str, str] = field(default_factory=dict)


def look_at_files(shadow: Shadow, stop: threading.Event | None, *, with_ignored: bool = False) -> Files:
    """Compare a tree with its commit, whatever its index says should be passed over.

    Raises:
        Unavailable: git failed.
    """
    files = Files()
    assumed = []
    for tag, mode, object_id, name in _index(shadow, stop):
        if tag.islower():
            assumed.append(name)
        if mode == GITLINK:
            files.gitlinks[name] = object_id
    if assumed:
        shadow.run(["update-index", "--no-assume-unchanged", "-z", "--stdin"], stop, _zeroed(assumed))
    written = []
    for line in _records(shadow.run([*_STATUS, *(["--ignored=matching"] * with_ignored)], stop)):
        if line.startswith("1 .M "):
            written.append(line)
        elif line[0] in "12u":
            files.changed += 1
        elif line[0] == "?":
            files.untracked += 1
        elif line[0] == "!":
            files.ignored.append(line[2:])
    files.changed += _staged_gitlinks(shadow, stop)
    files.changed += len(written) - _as_git_writes_them(shadow, written, stop)
    return files


def _as_git_writes_them(shadow: Shadow, lines: list[str], stop: threading.Event | None) -> int:
    """Return how many of these files are just what git itself would write.

    Where a repository's attributes do not fit its files, as with the ends of lines, they differ as soon as they are
    checked out. That is nobody's work.
    """
    names = []
    for line in lines:
        *_, in_index, in_tree, _, _, name = line.split(" ", 8)
        if in_index == in_tree and in_tree.startswith("100"):
            names.append(name)
    if not names:
        return 0
    folder = shadow.path / "anew"
    arguments = ["checkout-index", "--force", f"--prefix={folder}/", "-z", "--stdin"]
    with suppress(Invalid, Unavailable):  # it writes the others nevertheless
        shadow.run(arguments, stop, _zeroed(names), extra={"GIT_INDEX_FILE": str(shadow.copy_index())})
    if stop is not None and stop.is_set():
        raise Unavailable("the comparison with what git would write was stopped", hint="run it again")
    return sum(_are_alike(folder / name, real(shadow.tree) / name) for name in names)


def _are_alike(ours: Path, theirs: Path) -> bool:
    try:
        return real(theirs) == theirs and filecmp.cmp(ours, theirs, shallow=False)
    except OSError:
        return False


def _index(shadow: Shadow, stop: threading.Event | None) -> Iterable[tuple[str, str, str, str]]:
    """Yield each entry's tag (see git ls-files -v), mode, object id and name."""
    for line in _records(shadow.run(["ls-files", "--stage", "-v", "-z"], stop)):
        facts, _, name = line.partition("\t")
        tag, mode, object_id, _ = facts.split(" ")
        yield tag, mode, object_id, name


def _staged_gitlinks(shadow: Shadow, stop: threading.Event | None) -> int:
    """Return how many submodules have another commit in the index than in HEAD: the status passes over them."""
    if shadow.refs.head is None:
        return 0
    lines = _records(shadow.run(["diff-index", "--cached", "--raw", "-z", "--no-renames", "HEAD", "--"], stop))
    return sum(GITLINK in line.split(" ")[:2] for line in lines if line.startswith(":"))


def sort_out(
    shadow: Shadow, cache_objects: Path | None, tips: Mapping[str, str], stop: threading.Event | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Tell which of some tips are nowhere else, and which only the remote has.

    Args:
        shadow: Whose tips they are.
        cache_objects: The objects that came from the remote and stay; `None`: there is no such place.
        tips: Names and object ids.
        stop: Once it is set, git is killed within a moment.

    Returns:
        Those that no remote has, and those that are at the remote according to the tracking branches.

    Raises:
        Damaged: A tip is not there.
        Unavailable: git failed.
    """
    kinds = _kinds(shadow, tips.values(), stop, cache_objects) if cache_objects else {}
    left = {name: tip for name, tip in tips.items() if tip not in kinds}
    if not left:
        return {}, {}
    kinds = _kinds(shadow, left.values(), stop)
    for name, tip in left.items():
        if tip not in kinds:
            raise Damaged(f"{readable(name)} names an object that is not there")
    unknown = _unknown_to_remote(shadow, [tip for tip in left.values() if kinds[tip] == "commit"], stop)
    lost = {name: tip for name, tip in left.items() if kinds[tip] != "commit" or tip in unknown}
    return lost, {name: tip for name, tip in left.items() if name not in lost}


def _kinds(
    shadow: Shadow, ids: Collection[str], stop: threading.Event | None, objects: Path | None = None
) -> dict[str, str]:
    """Return the kinds of those objects that are there."""
    asked = "".join(f"{each}\n" for each in dict.fromkeys(ids))
    extra = {"GIT_OBJECT_DIRECTORY": str(objects)} if objects else None
    answers = shadow.run(["cat-file", "--batch-check=%(objectname) %(objecttype)"], stop, asked, extra=extra)
    pairs = (line.split(" ", 1) for line in answers.splitlines())
    return {object_id: kind for object_id, kind in pairs if kind != "missing"}


def _unknown_to_remote(shadow: Shadow, commits: Collection[str], stop: threading.Event | None) -> set[str]:
    """Return these commits, and those before them, that no tracking branch of the remote `origin` leads to."""
    if not commits:
        return set()
    known = {tip for name, tip in shadow.refs.named.items() if name.startswith(f"{REMOTES}origin/")}
    known = set(_kinds(shadow, [*known, *shadow.shallow], stop)) if known or shadow.shallow else set()
    asked = "".join([*(f"{each}\n" for each in commits), *(f"^{each}\n" for each in known)])
    return set(shadow.run(["rev-list", "--stdin"], stop, asked).split())


def tips_of(refs: Refs, prefix: str = "", *, tags: bool = True) -> dict[str, str]:
    """Return what would be lost with a git folder's refs: all but what was fetched from remotes.

    Args:
        refs: The refs.
        prefix: What goes before the names.
        tags: Whether tags belong to it.
    """
    left_out = (REMOTES, "refs/stash") if tags else (REMOTES, "refs/stash", "refs/tags/")
    found = {name: tip for name, tip in refs.named.items() if not name.startswith(left_out)}
    if refs.head is not None and refs.branch is None:
        found["HEAD"] = refs.head
    found |= {f"stash@{{{number}}}": tip for number, tip in enumerate(refs.stashed)}
    found |= refs.half_done
    return {f"{prefix}{name}": tip for name, tip in found.items()}


def _records(output: str) -> list[str]:
    return [record for record in output.split("\0") if record]


def _zeroed(names: Iterable[str]) -> str:
    return "".join(f"{name}\0" for name in names)


def shown_folder(name: str) -> str:
    """Return a folder's name as git writes it, with the slash."""
    return name if name.endswith("/") else name + "/"


def is_below(name: str, folders: Iterable[str]) -> bool:
    """Tell whether a folder is one of these, or lies in one. They end with a slash."""
    return shown_folder(name).startswith(tuple(folder for folder in folders if folder.endswith("/")))
