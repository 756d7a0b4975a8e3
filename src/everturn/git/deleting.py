"""Deleting and moving what strangers have made: links are not followed, and nothing in it can keep it from going."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

TRIES = 3  # others may be deleting the same


def remove(path: Path) -> None:
    """Delete a file or a folder with all that is in it, as far as that is possible. Links are not followed."""
    if path.is_symlink() or not path.is_dir():
        with suppress(OSError):
            path.unlink()
        return
    for _ in range(TRIES):
        with suppress(RecursionError):  # somebody has made folders in folders without end
            shutil.rmtree(path, onerror=_try_again)
        if not os.path.lexists(path):
            return
        _flatten(path)


def move(path: Path, target: Path) -> None:
    """Rename a file or a folder, also one that somebody has made read-only: a folder that gets another parent has to
    be writable, and so has the one that it is in.

    Raises:
        OSError: It cannot be renamed, or is not there.
    """
    try:
        path.rename(target)
    except PermissionError:
        for folder in (path, path.parent):
            if folder.is_dir() and not folder.is_symlink():
                with suppress(OSError):
                    folder.chmod(folder.stat().st_mode | stat.S_IRWXU)
        path.rename(target)


def _flatten(path: Path) -> None:
    """Move all folders below a folder right into it, and let them be deleted, as far as that is possible."""
    waiting = _folders_in(str(path))
    number = 0
    while waiting:
        for folder in _folders_in(waiting.pop()):
            while os.path.lexists(target := f"{path}/{number}"):
                number += 1
            with suppress(OSError):
                os.rename(folder, target)  # noqa: PTH104  # there are many of them
                waiting.append(target)


def _folders_in(folder: str) -> list[str]:
    try:
        _open_up(folder)
        with os.scandir(folder) as entries:
            found = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    for each in found:
        _open_up(each)
    return found


def _try_again(function: Any, name: str, _: object) -> None:
    """Some tools make folders that nobody may write to, or look into, themselves included."""
    _open_up(os.path.dirname(name))  # noqa: PTH120  # what rmtree hands over is a string
    if function is os.unlink or function is os.rmdir:
        with suppress(OSError):
            function(name)


def _open_up(folder: str) -> None:
    with suppress(OSError):
        if stat.S_ISDIR(os.lstat(folder).st_mode):  # a file may have another name elsewhere, which stays as it is
            os.chmod(folder, 0o700)  # noqa: PTH101
