"""What would be lost if a workdir went away.

Everything is looked at through a shadow (see shadow.py). Where something cannot be looked at, it counts as unsaved.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from everturn.errors import EverturnError, Unavailable
from everturn.git.shadow import Shadow, read_refs
from everturn.git.untrusted import (
    Damaged,
    everything_in,
    is_folder,
    read_gitfile,
    read_plain,
    readable,
    real,
    survey,
)
from everturn.workdirs.looking import is_below, look_at_files, sort_out, tips_of

Tips = tuple[tuple[str, str], ...]

NAMED_LIMIT = 3


@dataclass(frozen=True, slots=True)
class Unsaved:
    """What is in a workdir and nowhere else. True if there is anything.

    Attributes:
        changed: Files that are tracked and differ from the commit, in the tree or in the index.
        untracked: Files that are neither tracked nor ignored; a folder in which nothing is tracked counts once.
        tips: Names and object ids that are neither in the cache nor at the remote, as far as the workdir knows. The
            stash, and what an unfinished operation has put aside, are among them.
        pushed_only: Names and object ids that the remote has according to the workdir, and the cache has not. They
            do not count as unsaved; `rescue.keep_pushed` keeps them. If their history was cut off here, they are
            among `tips`.
        stash: Entries of the stash.
        operation: What was begun and not finished, as in "a merge"; `None`: nothing.
        nested: Repositories and linked worktrees inside the tree with something in them, relative to it.
        has_large_files: Whether git-lfs has put files aside that commits only name.
        damage: Why the tree could not be looked at, so that everything has to count; `None`: it could.
    """

    changed: int = 0
    untracked: int = 0
    tips: Tips = ()
    pushed_only: Tips = ()
    stash: int = 0
    operation: str | None = None
    nested: tuple[str, ...] = ()
    has_large_files: bool = False
    damage: str | None = None

    def __bool__(self) -> bool:
        return bool(
            self.changed or self.untracked or self.tips or self.stash or self.operation or self.nested or self.damage
        )

    @property
    def can_be_pushed(self) -> bool:
        """Whether commits can hold all of it."""
        return not (self.nested or self.damage or (self.tips and self.has_large_files))

    def reasons(self) -> list[str]:
        """Say what there is, for people: one phrase each. Holds names of refs and folders, no contents."""
        stashed = {name for name, _ in self.tips if _is_stash(name)}
        names = [name for name, _ in self.tips if name not in stashed]
        said = [
            _counted(self.changed, "changed file"),
            _counted(self.untracked, "untracked file or folder", "untracked files or folders"),
            _counted(len(names), "ref that no remote has", "refs that no remote has", names),
            _counted(self.stash, "entry in the stash", "entries in the stash"),
            f"{self.operation} that was not finished" if self.operation else "",
            _counted(
                len(self.nested),
                "repository or worktree inside it with work of its own",
                "repositories or worktrees inside it with work of their own",
                self.nested,
            ),
            "large files that commits only name" if self.tips and self.has_large_files else "",
            f"it could not be looked at: {self.damage}" if self.damage else "",
        ]
        return [phrase for phrase in said if phrase]


def _counted(count: int, one: str, several: str = "", names: Sequence[str] = ()) -> str:
    if not count:
        return ""
    shown = ", ".join(readable(name) for name in names[:NAMED_LIMIT]) + (", …" if len(names) > NAMED_LIMIT else "")
    return f"{count} {one if count == 1 else several or one + 's'}" + (f" ({shown})" if shown else "")


def _is_stash(name: str) -> bool:
    return name.startswith("stash@")


def inspect(shadow: Shadow, cache_git_dir: Path, stop: threading.Event | None = None) -> Unsaved:
    """Look what is unsaved in a workdir. Changes nothing but the shadow, and asks no remote. Blocks.

    Args:
        shadow: The workdir's.
        cache_git_dir: The cache that it borrows from, fetched if that was possible.
        stop: Once it is set, git is killed within a moment.

    Raises:
        Unavailable: It was stopped. Everything else that goes wrong is `Unsaved.damage`.
    """
    if stop is not None and stop.is_set():
        raise Unavailable(f"the look at {shadow.tree} was stopped", hint="run it again")
    if shadow.damage is not None:
        return Unsaved(damage=shadow.damage)
    try:
        return _Inspection(shadow, cache_git_dir, survey(shadow.tree), stop).unsaved()
    except Damaged as damaged:
        return Unsaved(damage=str(damaged))
    except EverturnError as error:
        if stop is not None and stop.is_set():
            raise
        return Unsaved(damage=readable(error.message))
    except (OSError, ValueError) as error:
        return Unsaved(damage=f"it cannot be read: {error}")


class _Inspection:
    def __init__(
        self, shadow: Shadow, cache_git_dir: Path, nested: Sequence[str], stop: threading.Event | None
    ) -> None:
        self._shadow = shadow
        self._cache = cache_git_dir
        self._stop = stop
        self._has_work: dict[str, bool] = {}
        self._tips = tips_of(shadow.refs)
        self._unknown = list(nested)

    def unsaved(self) -> Unsaved:
        self._look_at_linked_worktrees()
        self._pass_over_empty_repositories()
        files = look_at_files(self._shadow, self._stop, with_ignored=bool(self._unknown))
        self._look_at_submodules(files.gitlinks)
        self._has_work |= {name: True for name in self._unknown if not is_below(name, files.ignored)}
        lost, pushed = sort_out(self._shadow, self._cache / "objects", self._tips, self._stop)
        if pushed and self._ends_earlier():
            lost, pushed = lost | pushed, {}
        refs = self._shadow.refs
        return Unsaved(
            changed=files.changed,
            untracked=files.untracked,
            tips=tuple(lost.items()),
            pushed_only=tuple(pushed.items()),
            stash=len(refs.stashed),
            operation=refs.operation,
            nested=tuple(sorted(name for name, has_work in self._has_work.items() if has_work)),
            has_large_files=_has_files(self._shadow.git_dir / "lfs" / "objects"),
        )

    def _ends_earlier(self) -> bool:
        """Tell whether history ends here where it goes on in the cache. What is kept there may not say so: to all
        others history would end there, too."""
        known = (read_plain(self._cache / "shallow") or b"").decode("ascii", "replace").split()
        return not set(known).issuperset(self._shadow.shallow)

    # --- Linked worktrees -----------------------------------------------------------------------------------------

    def _look_at_linked_worktrees(self) -> None:
        git_dir = self._shadow.git_dir
        for folder in _folders_in(git_dir / "worktrees"):
            refs = read_refs(folder, git_dir)
            own = {name: tip for name, tip in refs.named.items() if name not in self._shadow.refs.named}
            self._tips |= tips_of(replace(refs, named=own, stashed=[]), f"worktrees/{folder.name}/")
            tree = linked_tree(folder)
            if tree is None:
                continue
            top = real(self._shadow.tree)
            inside = tree.is_relative_to(top)
            name = str(tree.relative_to(top) if inside else tree)
            self._has_work[name] = not inside or self._differs(folder, tree)
            if name in self._unknown:
                self._unknown.remove(name)
            if not self._has_work[name]:
                self._shadow.exclude(name)

    def _differs(self, git_dir: Path, tree: Path) -> bool:
        with self._shadow.linked(git_dir.name, tree) as shadow:
            return self._has_changes(shadow)

    def _has_changes(self, shadow: Shadow) -> bool:
        if shadow.damage is not None or shadow.refs.operation is not None:
            return True
        files = look_at_files(shadow, self._stop)
        return bool(files.changed or files.untracked)

    # --- Submodules and other repositories ------------------------------------------------------------------------

    def _pass_over_empty_repositories(self) -> None:
        for name in list(self._unknown):
            if _is_empty(self._shadow.tree / name) and self._shadow.exclude(name):
                self._unknown.remove(name)

    def _look_at_submodules(self, gitlinks: Mapping[str, str]) -> None:
        recorded = dict(gitlinks)
        modules = {real(path): path for path in _modules(self._shadow.git_dir)}
        for name in list(self._unknown):
            git_dir = _git_dir(self._shadow.tree / name)
            if git_dir not in modules and name not in recorded:
                continue
            self._unknown.remove(name)
            modules.pop(git_dir, None)
            self._has_work[name] = self._module_has_work(git_dir, name, recorded)
        for git_dir in modules.values():  # of submodules that are not checked out
            name = str(git_dir.relative_to(self._shadow.tree))
            self._has_work[name] = self._module_has_work(git_dir, None, recorded)
        for name in recorded:  # a submodule's place with files in it, and no repository
            if name not in self._has_work and is_folder(self._shadow.tree / name):
                self._has_work[name] = any((self._shadow.tree / name).iterdir())

    def _module_has_work(self, git_dir: Path, name: str | None, recorded: dict[str, str]) -> bool:
        tree = self._shadow.tree / name if name is not None else self._shadow.path
        with self._shadow.module(git_dir, tree) as shadow:
            if shadow.damage is not None or shadow.refs.operation is not None:
                return True
            if name is not None:
                files = look_at_files(shadow, self._stop)
                recorded |= {f"{name}/{below}": commit for below, commit in files.gitlinks.items()}
                if files.changed or files.untracked or shadow.refs.head != recorded.get(name):
                    return True
            # Tags are left out: a clone brings them along, and nothing says which came from where.
            lost, _ = sort_out(shadow, None, tips_of(shadow.refs, tags=False), self._stop)
            return bool(lost)


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_folder(path)) if is_folder(folder) else []


def linked_tree(git_dir: Path) -> Path | None:
    """Return where a linked worktree is; `None` if nothing there says that it is this one."""
    said = os.fsdecode(read_plain(git_dir / "gitdir") or b"").rstrip("\r\n")
    if not said:
        return None
    link = git_dir / said
    target = read_gitfile(link)
    if target is None or real(target) != real(git_dir):
        return None
    return real(link.parent)


def _modules(git_dir: Path) -> list[Path]:
    """Return the git folders of submodules, of those in submodules as well."""
    found = []
    waiting = [git_dir / "modules"]
    while waiting:
        folder = waiting.pop()
        if is_folder(folder / "objects") and (folder / "HEAD").exists():
            found.append(folder)
            waiting.append(folder / "modules")
        else:
            waiting += _folders_in(folder)
    return found


def _git_dir(tree: Path) -> Path:
    """Return the git folder of a repository inside the tree, wherever it is."""
    return real(read_gitfile(tree / ".git") or tree / ".git")


def _is_empty(tree: Path) -> bool:
    """Tell whether somebody has made a repository there, and nothing in it."""
    git_dir = tree / ".git"
    if [path.name for path in tree.iterdir()] != [".git"] or not is_folder(git_dir / "objects"):
        return False
    return not _has_files(git_dir / "objects")


def _has_files(folder: Path) -> bool:
    return any(entry.is_symlink() or entry.is_file() for entry in everything_in(folder))
