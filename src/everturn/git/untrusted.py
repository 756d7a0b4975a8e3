"""Reading folders that an agent could write: no link is followed, no pipe is waited for, nothing is endless."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

FILE_LIMIT_BYTES = 256 * 1024**2
ENTRIES_LIMIT = 2_000_000
SHORTAGES = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # of this machine: no damage

_GITFILE_LIMIT_BYTES = 4096
_GITFILE_BEGIN = "gitdir: "


class Damaged(Exception):
    """Something is not as git leaves it. The message says what, for people."""


def readable(name: str) -> str:
    """Return a file's name, or a ref's, in characters that can be shown and stored anywhere."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def is_folder(path: Path) -> bool:
    """Tell whether there is a folder, and no link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder. The caller has made sure that it is one, and no link.

    Raises:
        Damaged: It cannot be read.
        OSError: The machine is short of something.
    """
    try:
        with os.scandir(folder) as listing:
            return list(listing)
    except (OSError, ValueError) as error:
        _raise_shortage(error)
        raise Damaged(f"the folder {readable(Path(folder).name)} cannot be read") from None


def everything_in(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield what is in a folder and below it, however deep. What cannot be read is passed over."""
    waiting: list[str | Path] = [folder]
    while waiting:
        try:
            found = entries(waiting.pop())
        except Damaged:
            continue
        yield from found
        waiting += [entry.path for entry in found if entry.is_dir(follow_symlinks=False)]


def real(path: str | Path) -> Path:
    """Return where a path leads to. Links that lead round in a circle are left as they are."""
    return Path(os.path.realpath(path))


def open_plain(path: Path) -> io.BufferedReader | None:
    """Open a file to read it; `None` if there is none.

    Raises:
        Damaged: It is a link, a pipe or a folder, or cannot be read.
        OSError: The machine is short of something.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        _raise_shortage(error)
        raise Damaged(f"{readable(path.name)} cannot be read, or is a link") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Damaged(f"{readable(path.name)} is not a file")
    return os.fdopen(descriptor, "rb")


def _raise_shortage(error: Exception) -> None:
    if isinstance(error, OSError) and error.errno in SHORTAGES:
        raise error


def read_plain(path: Path, limit_bytes: int = FILE_LIMIT_BYTES) -> bytes | None:
    """Return what is in a file; `None` if there is none.

    Raises:
        Damaged: It is a link, a pipe, a folder, too long, or cannot be read.
    """
    file = open_plain(path)
    if file is None:
        return None
    with file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise Damaged(f"{readable(path.name)} is longer than {limit_bytes} bytes")
    return content


def read_gitfile(path: Path) -> Path | None:
    """Return where a `.git` that is a file says the repository is; `None` if it says nothing."""
    try:
        content = read_plain(path, _GITFILE_LIMIT_BYTES)
    except Damaged:
        return None
    if content is None or not content.startswith(_GITFILE_BEGIN.encode()):
        return None
    target = os.fsdecode(content).removeprefix(_GITFILE_BEGIN).rstrip("\r\n")
    return None if "\0" in target else Path(os.path.normpath(path.parent / target))


def survey(tree: Path) -> list[str]:
    """Look through a tree before git does: all names, no contents, `.git` and ignored folders included.

    Returns:
        The folders, relative to the tree, that have a `.git` of their own.

    Raises:
        Damaged: git would wait at something for ever, something cannot be read, or there is no end to it.
    """
    nested: list[str] = []
    seen = 0
    waiting = [(str(tree), False)]
    while waiting:
        folder, in_git = waiting.pop()
        for entry in entries(folder):
            seen += 1
            if entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, in_git or entry.name == ".git"))
            if in_git or entry.name.startswith((".git", ".lfsconfig")):
                _check_for_pipe(entry.path, tree)
                if entry.name == ".git" and not in_git and folder != str(tree):
                    _check_target(entry, tree)
                    nested.append(os.path.relpath(folder, tree))
        if seen > ENTRIES_LIMIT:
            raise Damaged(f"there are more than {ENTRIES_LIMIT} files")
    return sorted(nested)


def _check_target(entry: os.DirEntry[str], tree: Path) -> None:
    """A `.git` may be a link, or a file that names another place. git looks there, too, and follows all links."""
    target = real(entry.path) if entry.is_symlink() else read_gitfile(Path(entry.path))
    if target is not None:
        for place in (target, target / "HEAD", target / "commondir"):
            _check_for_pipe(os.path.realpath(place), tree)


def _check_for_pipe(path: str, tree: Path) -> None:
    try:
        mode = os.lstat(path).st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
        raise Damaged(f"{_shown(path, tree)} is a pipe, a socket or a device")


def _shown(path: str, tree: Path) -> str:
    return readable(os.path.relpath(path, tree))
