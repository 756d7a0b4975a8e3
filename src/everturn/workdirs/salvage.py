"""What is still good in a damaged cache goes on in the new one: workdirs may need what no remote has any more."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from everturn.errors import EverturnError
from everturn.git.deleting import remove
from everturn.git.gitdir import make_folder
from everturn.git.runner import INCONCLUSIVE

BESIDE = (".promisor", ".keep")  # what belongs to a pack, apart from its index
REPLACEABLE = ("info/commit-graph", "info/commit-graphs", "pack/multi-pack-index")  # git works without them

_HASHES = {40: ("sha1", 20), 64: ("sha256", 32)}
_PACKED = re.compile(rb"(?m)^([0-9a-f]{40}|[0-9a-f]{64}) (refs/[^\s]+)$")
_LOOSE = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64})\n?")

Run = Callable[[list[str]], Any]


def looks_whole(objects: Path) -> bool:
    """Tell whether each pack is there with its index, and neither was cut off. Reads a few bytes of each: fast.

    Args:
        objects: The objects of a repository.
    """
    folder = objects / "pack"
    stems = {path.stem for path in folder.glob("*.pack")} | {path.stem for path in folder.glob("*.idx")}
    return all(_match(folder / f"{stem}.pack", folder / f"{stem}.idx") for stem in stems)


def _match(pack: Path, index: Path) -> bool:
    """A pack ends with a checksum, and its index with that one and its own."""
    try:
        of_pack, of_index = _end(pack), _end(index)
    except OSError:
        return False
    return any(of_index[-2 * size : -size] == of_pack[-size:] for _, size in _HASHES.values() if len(of_pack) >= size)


def _end(path: Path) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 64))
        return file.read()


def move_good(damaged: Path, objects: Path, run: Run) -> None:
    """Move the objects that can be read from one folder to another; the others stay.

    Args:
        damaged: The objects of a repository that is not used any more.
        objects: The objects of the one that takes its place.
        run: Runs git in the latter.

    Raises:
        EverturnError: git was stopped. It can be done again.
    """
    moved = []
    for pack in _plain_files(damaged / "pack", "*.pack"):
        index = pack.with_suffix(".idx")
        for path in (*(pack.with_suffix(ending) for ending in BESIDE), pack, index):  # with the index it is in use
            if path.is_file() and not path.is_symlink():
                path.rename(objects / "pack" / path.name)
        moved.append(objects / "pack" / pack.name)
    for pack in moved:
        if not _is_good(pack, run):
            pack.with_suffix(".idx").unlink(missing_ok=True)
            pack.rename(damaged / "pack" / pack.name)
    for loose in _plain_files(damaged, "??/*"):
        if _names_its_content(loose):
            loose.rename(make_folder(objects, loose.parent.name) / loose.name)


def _is_good(pack: Path, run: Run) -> bool:
    index = pack.with_suffix(".idx")
    for arguments in (["verify-pack", str(index)], ["index-pack", str(pack)]):
        try:
            if index.exists() or arguments[0] == "index-pack":
                run(arguments)
                return True
        except INCONCLUSIVE:
            raise
        except EverturnError:
            remove(index)
    return False


def _names_its_content(path: Path) -> bool:
    name = path.parent.name + path.name
    if len(name) not in _HASHES:
        return False
    try:
        content = zlib.decompress(path.read_bytes())
    except (OSError, zlib.error):
        return False
    return hashlib.new(_HASHES[len(name)][0], content, usedforsecurity=False).hexdigest() == name


def has_nothing_left(damaged: Path) -> bool:
    """Tell whether nothing is left in which something might still be read."""
    return not any(_plain_files(damaged / "pack", "*.pack"))


def unpack_rest(damaged: Path, unpack: Callable[[Path], Any]) -> None:
    """Take what can still be read out of packs that are not whole.

    Args:
        damaged: The objects of the repository that is not used any more.
        unpack: Unpacks what can be read in a pack, and that is not there.

    Raises:
        EverturnError: git came to no end. It can be done again.
    """
    for pack in _plain_files(damaged / "pack", "*.pack"):
        try:
            unpack(pack)
        except INCONCLUSIVE:
            raise
        except EverturnError:  # it says what could not be read
            continue


def readable_refs(damaged: Path) -> dict[str, str]:
    """Return the refs of a damaged repository that can be understood, and what they name."""
    found: dict[str, str] = {}
    for path in _plain_files(damaged, "packed-refs"):
        found |= {
            name.decode("utf-8", "surrogateescape"): value.decode()
            for value, name in _PACKED.findall(path.read_bytes())
        }
    for path in _plain_files(damaged, "refs/**/*"):
        value = _LOOSE.fullmatch(path.read_bytes())
        if value is not None:
            found[str(path.relative_to(damaged))] = value[1].decode()
    return found


def _plain_files(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield files that are no links, nor in folders that are."""
    for path in sorted(folder.glob(pattern)):
        if path.is_file() and path.resolve() == folder.resolve() / path.relative_to(folder):
            yield path
