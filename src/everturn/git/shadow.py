"""Looking at a working tree through a git folder of ours.

A workdir's `.git` belongs to the agent, and much in it names programs that git starts. So git never uses it when we
look: it gets a temporary folder with our configuration, a copy of the index, and HEAD as a plain commit. From the
agent's folder it reads objects only, and it writes its own beside them. Refs are read by us.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Self

from everturn.git.deleting import remove
from everturn.git.runner import GaveUp, Git
from everturn.git.untrusted import (
    FILE_LIMIT_BYTES,
    SHORTAGES,
    Damaged,
    entries,
    is_folder,
    open_plain,
    read_plain,
    readable,
)

REF_LIMIT_BYTES = 4096
SYMREF_DEPTH = 5

# git is told of no remote, so it fetches nothing that a partial clone lacks. It believes neither what an index says
# of files that it does not list, nor what lies beside objects to find them faster. The one filter is that for large
# files, which would all seem to have changed without it; git passes over it where there is no git-lfs. The name of a
# commit is enough to fetch it from here, with old versions of the protocol, too.
_CONFIG = """\
[core]
\trepositoryFormatVersion = {version}
\tbare = false
\tlogAllRefUpdates = false
\tsparseCheckout = true
\tuntrackedCache = false
\tsplitIndex = false
\tcommitGraph = false
\tmultiPackIndex = false
[sparse]
\texpectFilesOutsideOfPatterns = false
[index]
\tsparse = false
[pack]
\tuseBitmaps = false
[uploadpack]
\tallowAnySHA1InWant = true
[filter "lfs"]
\tclean = git-lfs clean -- %f
[extensions]
"""
_OBJECT_ID = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SYMREF = "ref: "

_OPERATIONS = {
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "BISECT_LOG": "a bisection",
    "sequencer": "a cherry-pick",
}
_HALF_DONE = (
    "MERGE_HEAD",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "MERGE_AUTOSTASH",
    "rebase-merge/autostash",
    "rebase-apply/autostash",
    "rebase-merge/orig-head",
    "rebase-apply/orig-head",
)


@dataclass
class Refs:
    """What a git folder names, read without git.

    Attributes:
        head: The commit that HEAD leads to; `None`: none yet.
        branch: The ref that HEAD names; `None`: it is detached.
        named: Refs and what they name, as object ids. Those that only lead to others are left out.
        stashed: The entries of the stash, the latest first.
        half_done: What an operation that was not finished has put aside, or is to bring in.
        operation: What was not finished, with its article; `None`: nothing.
    """

    head: str | None = None
    branch: str | None = None
    named: dict[str, str] = field(default_factory=dict)
    stashed: list[str] = field(default_factory=list)
    half_done: dict[str, str] = field(default_factory=dict)
    operation: str | None = None


class Shadow:
    """A git folder of ours for a tree. Made by `of`, `linked` and `module`.

    Attributes:
        path: The folder; it goes when the block ends.
        tree: The working tree.
        git_dir: The tree's own git folder, which git never sees.
        refs: What is named in it.
        shallow: The commits whose parents were never fetched.
        damage: Why the tree cannot be looked at; `None`: it can. With damage, no method may be called.
    """

    def __init__(  # the one place that knows all of it
        self, git: Git, path: Path, *, tree: Path, git_dir: Path, borrowed: Sequence[Path], sha256: bool
    ) -> None:
        self.path = path
        self.tree = tree
        self.git_dir = git_dir
        self.refs = Refs()
        self.shallow: list[str] = []
        self.damage: str | None = None
        self._git = git
        self._borrowed = borrowed
        self._sha256 = sha256
        self._count = 0

    @classmethod
    @contextlib.contextmanager
    def of(cls, git: Git, tree: Path, objects: Path, folder: Path, *, sha256: bool = False) -> Iterator[Self]:
        """Give a shadow of a workdir.

        Args:
            git: Runs git.
            tree: The workdir.
            objects: The `objects` of the cache that it borrows from.
            folder: Where the shadow is made; a folder that no agent works in, on a disk with some room.
            sha256: Whether the repository's object ids are of that kind.

        Raises:
            Unavailable: The machine has no room for it, or too many open files.
        """
        with _temporary(folder) as made:
            shadow = cls(git, made, tree=tree, git_dir=tree / ".git", borrowed=(objects,), sha256=sha256)
            shadow._fill(shadow.git_dir)
            yield shadow

    @contextlib.contextmanager
    def linked(self, worktree: str, tree: Path) -> Iterator[Self]:
        """Give a shadow of a worktree that the agent has linked to this one.

        Args:
            worktree: Its name in `.git/worktrees`.
            tree: Where it is.
        """
        git_dir = self.git_dir / "worktrees" / worktree
        with self._another(tree, git_dir, (*self._borrowed, self.git_dir / "objects")) as shadow:
            shadow._fill(self.git_dir)
            yield shadow

    @contextlib.contextmanager
    def module(self, git_dir: Path, tree: Path) -> Iterator[Self]:
        """Give a shadow of a submodule.

        Args:
            git_dir: Its git folder.
            tree: Where it is checked out; a folder of ours that is empty if it is not.
        """
        with self._another(tree, git_dir, ()) as shadow:
            shadow._fill(git_dir)
            yield shadow

    @contextlib.contextmanager
    def _another(self, tree: Path, git_dir: Path, borrowed: Sequence[Path]) -> Iterator[Self]:
        with _temporary(self.path) as made:
            yield type(self)(self._git, made, tree=tree, git_dir=git_dir, borrowed=borrowed, sha256=self._sha256)

    def run(
        self,
        arguments: Sequence[str],
        stop: threading.Event | None = None,
        text: str | None = None,
        *,
        online: bool = False,
        extra: Mapping[str, str] | None = None,
        config: Mapping[str, str] | None = None,
    ) -> str:
        """Run git on the tree with our configuration only, and return what it printed.

        Args:
            arguments: See `Git.run`. Nothing that works in submodules: git would obey their configuration.
            stop: Once it is set, git is killed within a moment.
            text: What it reads.
            online: Whether it may talk to a remote, with our credentials.
            extra: Variables on top of the others.
            config: Configuration that goes before ours.

        Raises:
            NotFound: As `Git.run`, and likewise all its other errors.
        """
        variables = {
            "GIT_DIR": str(self.path),
            "GIT_WORK_TREE": str(self.tree),
            "GIT_INDEX_FILE": str(self.path / "index"),
            "GIT_ATTR_NOSYSTEM": "1",
            "XDG_CONFIG_HOME": str(self.path),  # in the user's own, an agent could have ignored everything
            **(extra or {}),
        }
        return self._git.run(arguments, self.tree, stop, online=online, config=config, extra=variables, text=text)

    def copy_index(self) -> Path:
        """Return a copy of the index, for `GIT_INDEX_FILE`, that may be changed."""
        self._count += 1
        target = self.path / f"index-{self._count}"
        if (self.path / "index").exists():
            shutil.copy2(self.path / "index", target)
        return target

    def exclude(self, folder: str) -> bool:
        """Have a folder not count as untracked. Tell whether that can be said of one with such a name."""
        if "\n" in folder or folder.endswith(" "):
            return False
        with (self.path / "info" / "exclude").open("ab") as file:
            file.write(os.fsencode("/" + re.sub(r"([\\*?\[])", r"\\\1", folder) + "/\n"))
        return True

    # --- Making it ------------------------------------------------------------------------------------------------

    def _fill(self, common: Path) -> None:
        try:
            _check(self.tree, self.git_dir, common, self._borrowed)
            self.refs = read_refs(self.git_dir, common)
            self.shallow = _read_ids(common / "shallow")
            self._write(common)
            for name in ("index", *_shared_indexes(self.git_dir)):
                _copy_index(self.git_dir / name, self.path / name, "sha256" if self._sha256 else "sha1")
        except Damaged as damaged:
            self.damage = str(damaged)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in SHORTAGES:
                text = f"{self.tree} cannot be looked at: {error.strerror}"
                raise GaveUp(text, hint="make room on the disk, or allow more open files") from error
            self.damage = f"it cannot be read: {error}"

    def _write(self, common: Path) -> None:
        for name in ("info", "objects/info", "objects/pack", "refs"):
            (self.path / name).mkdir(parents=True)
        text = _CONFIG.format(version=int(self._sha256))
        (self.path / "config").write_text(text + "\tobjectFormat = sha256\n" * self._sha256)
        (self.path / "HEAD").write_text(f"{self.refs.head or 'ref: refs/heads/unborn'}\n")
        # The cache goes first: what both have is taken from where no agent writes.
        places = (*self._borrowed, common / "objects")
        unique = dict.fromkeys(os.fsencode(place.absolute()) for place in places)
        if any(b"\n" in place for place in unique):
            raise Damaged("its path has a line's end in it")  # what follows would be another place to read from
        (self.path / "objects" / "info" / "alternates").write_bytes(b"".join(place + b"\n" for place in unique))
        if self.shallow:
            (self.path / "shallow").write_text("".join(f"{each}\n" for each in self.shallow))


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """Give a folder for a while. What lies in it by then may be deeper than Python's own would take."""
    made = Path(mkdtemp(prefix="shadow-", dir=folder))
    try:
        yield made
    finally:
        remove(made)


def _check(tree: Path, git_dir: Path, common: Path, borrowed: Sequence[Path]) -> None:
    if not is_folder(tree):
        raise Damaged("the folder itself is not there, or is a link")
    if not is_folder(git_dir):
        raise Damaged("its .git is not a folder")
    if git_dir == common and os.path.lexists(git_dir / "commondir"):
        raise Damaged("its .git says that it is a part of another repository")
    if os.path.lexists(common / "reftable"):
        raise Damaged("its refs are kept in a way that we cannot read")
    if not is_folder(common / "objects"):
        raise Damaged("its objects are not in a folder of its own")
    _check_objects(common / "objects", {os.fsencode(place.absolute()) for place in borrowed})


def _check_objects(objects: Path, borrowed: set[bytes]) -> None:
    """Make sure that git reads nothing but plain files there, and from nowhere else."""
    waiting = [objects]
    while waiting:
        for entry in entries(waiting.pop()):
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            elif not entry.is_file(follow_symlinks=False):
                raise Damaged(f"among its objects, {readable(entry.name)} is not a file")
    lines = (read_plain(objects / "info" / "alternates") or b"").splitlines()
    if any(line and not line.startswith(b"#") and os.path.normpath(line) not in borrowed for line in lines):
        raise Damaged("it borrows objects from another place than its cache")


def _shared_indexes(git_dir: Path) -> list[str]:
    return [entry.name for entry in entries(git_dir) if re.fullmatch(r"sharedindex\.[0-9a-f]+", entry.name)]


def _copy_index(source: Path, target: Path, algorithm: str) -> None:
    file = open_plain(source)
    if file is None:
        return
    with file:
        content = file.read(FILE_LIMIT_BYTES)
        found = os.fstat(file.fileno())
    size = hashlib.new(algorithm).digest_size
    # git does not look at the checksum, but in an index that was cut off it would find other files than there were.
    if content[-size:] not in (hashlib.new(algorithm, content[:-size]).digest(), bytes(size)):
        raise Damaged("its index is damaged")
    target.write_bytes(content)
    # By the time of the index git knows which files may have changed behind its back.
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


# --- Refs ---------------------------------------------------------------------------------------------------------


def read_refs(git_dir: Path, common: Path) -> Refs:
    """Return what a git folder names.

    Args:
        git_dir: The folder, or that of a linked worktree.
        common: The folder that has the branches.

    Raises:
        Damaged: Something in it cannot be understood.
    """
    raw = _packed(common / "packed-refs")
    raw |= _loose(common)
    if git_dir != common:
        raw |= _loose(git_dir)
    refs = Refs(named={name: value for name, value in raw.items() if not value.startswith(_SYMREF)})
    head = _one(git_dir / "HEAD")
    if head is None:
        raise Damaged("it has no HEAD")
    if head.startswith(_SYMREF):
        refs.branch = head.removeprefix(_SYMREF)
        refs.head = _resolved(refs.branch, raw)
    else:
        refs.head = head
    refs.stashed = _stash(common, refs.named.get("refs/stash"))
    refs.operation = next((said for name, said in _OPERATIONS.items() if os.path.lexists(git_dir / name)), None)
    for name in _HALF_DONE:
        for number, value in enumerate(_read_ids(git_dir / name)):
            refs.half_done[f"{name}-{number}" if number else name] = value
    return refs


def _resolved(name: str, raw: Mapping[str, str]) -> str | None:
    for _ in range(SYMREF_DEPTH):
        value = raw.get(name)
        if value is None or not value.startswith(_SYMREF):
            return value
        name = value.removeprefix(_SYMREF)
    raise Damaged("HEAD leads round in a circle")


def _packed(path: Path) -> dict[str, str]:
    found = {}
    for line in (read_plain(path) or b"").split(b"\n"):
        if not line or line.startswith((b"#", b"^")):
            continue
        value, _, name = line.partition(b" ")
        if not _OBJECT_ID.fullmatch(value) or not name:
            raise Damaged("packed-refs cannot be understood")
        found[os.fsdecode(name)] = value.decode()
    return found


def _loose(git_dir: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    if os.path.lexists(git_dir / "refs") and not is_folder(git_dir / "refs"):
        raise Damaged("its refs are not in a folder of its own")
    waiting = [git_dir / "refs"] if is_folder(git_dir / "refs") else []
    while waiting:
        for entry in entries(waiting.pop()):
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            elif not entry.name.endswith(".lock"):  # no ref may be called that; git was killed
                value = _one(Path(entry.path))
                if value is not None:
                    found[os.path.relpath(entry.path, git_dir)] = value
    return found


def _one(path: Path) -> str | None:
    """Return what one ref is, as `ref: …` or an object id; `None` if it is not there."""
    if path.is_symlink():
        target = str(path.readlink())
        if target.startswith("refs/"):  # as very old versions of git wrote them
            return f"{_SYMREF}{target}"
    content = read_plain(path, REF_LIMIT_BYTES)
    if content is None:
        return None
    if content.startswith(_SYMREF.encode()):
        return _SYMREF + os.fsdecode(content).removeprefix(_SYMREF).strip()
    value = content.split(maxsplit=1)[0] if content.strip() else b""
    if not _OBJECT_ID.fullmatch(value):
        raise Damaged(f"the ref {readable(path.name)} cannot be understood")
    return value.decode()


def _stash(common: Path, latest: str | None) -> list[str]:
    """Return the stash; all but the latest entry are known to its log only."""
    if latest is None:
        return []
    lines = (read_plain(common / "logs" / "refs" / "stash") or b"").splitlines()
    words = [line.split(b" ", 2)[1:2] for line in lines]
    stashed = [word[0].decode() for word in reversed(words) if word and _OBJECT_ID.fullmatch(word[0])]
    return stashed if latest in stashed else [latest, *stashed]


def _read_ids(path: Path) -> list[str]:
    """Return the object ids that a file lists, one a line."""
    lines = (read_plain(path) or b"").split()
    return [word.decode() for word in lines if _OBJECT_ID.fullmatch(word)]
