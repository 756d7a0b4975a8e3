"""What is noted about caches and workdirs, beside them, where no agent works."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from everturn.workdirs.root import Root, read_json

LARGEST = 2**60
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

_NOTHING = type(None)
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, _NOTHING),
    "int | None": (int, _NOTHING),
    "float": (float, int),
    "float | None": (float, int, _NOTHING),
    "bool": (bool,),
}


def _is_sane(value: object, kind: str) -> bool:
    """Tell whether a value is of its kind, and nothing that no clock and no disk has."""
    return isinstance(value, _KINDS[kind]) and (not isinstance(value, int | float) or abs(value) < LARGEST)


@dataclass(frozen=True, slots=True)
class _Record:
    FOLDER: ClassVar[str]  # where those of a kind lie, below the root

    name: str
    repo: str = ""
    created_at: float = 0.0
    last_used_at: float = 0.0
    size_bytes: int | None = None
    measured_at: float | None = None

    @classmethod
    def read(cls, root: Root, name: str) -> Self | None:
        """Return the record of a name; `None` if there is none, or none that can be read."""
        found = read_json(cls.file(root, name))
        if found is None or found.get("name") != name:
            return None
        known = {field.name: str(field.type) for field in fields(cls) if field.name in found}
        if any(not _is_sane(found[key], kind) for key, kind in known.items()):
            return None
        if not NAME.fullmatch(name) or not NAME.fullmatch(found.get("cache") or "none"):  # they become paths
            return None
        return cls(**{key: found[key] for key in known})

    @classmethod
    def all(cls, root: Root) -> Iterator[Self]:
        """Yield the records that there are, in the order of their names.

        Raises:
            Denied: They may not be looked at.
        """
        try:
            files = sorted(path.name for path in (root.path / cls.FOLDER).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise root.closed(error) from error
        for file in files:
            if file.endswith(".json") and not file.startswith("."):
                record = cls.read(root, file.removesuffix(".json"))
                if record is not None:
                    yield record

    @classmethod
    def file(cls, root: Root, name: str) -> Path:
        """Return where the record of a name is."""
        return root.path / cls.FOLDER / f"{name}.json"

    def write(self, root: Root) -> None:
        """Write it. On return it survives the process."""
        root.write_record(self.file(root, self.name), self.facts())

    def but(self, **changed: Any) -> Self:
        """Return it with some things changed."""
        return replace(self, **changed)

    def facts(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class WorkdirRecord(_Record):
    """What is noted about a workdir. Times are seconds since the Unix epoch.

    Attributes:
        name: Its name, and that of its folder in `trees`.
        repo: The repository.
        created_at: When it was made.
        last_used_at: When a run last began or ended in it.
        size_bytes: How much room it takes on the disk, when it was last measured; `None`: it never was.
        measured_at: When that was.
        work_key: The work item whose run was in it last.
        agent: Its agent.
        branch: What was asked for; `None`: the default branch.
        cache: The cache that it borrows from.
        run_id: The run that was in it last.
        ignored_bytes: How much of its size are files that git ignores: what was built, mostly.
        is_settled: Whether a run may have worked in it. Until then nothing can be lost in it.
        lfs: Whether large files were fetched into it; git does not notice when that changes.
    """

    FOLDER = "records"

    work_key: str = ""
    agent: str | None = None
    branch: str | None = None
    cache: str = ""
    run_id: str = ""
    ignored_bytes: int | None = None
    is_settled: bool = True
    lfs: bool = False

    def tree(self, root: Root) -> Path:
        """Return the folder in which the agent works."""
        return root.trees / self.name


@dataclass(frozen=True, slots=True)
class CacheRecord(_Record):
    """What is noted about a cache. Times are seconds since the Unix epoch.

    Attributes:
        name: Its name, and that of its folder in `caches`.
        repo: The repository.
        created_at: When it was made.
        last_used_at: When a workdir was last opened from it.
        size_bytes: How much room it takes on the disk, when it was last measured; `None`: it never was.
        measured_at: When that was.
        default_branch: The remote's, when it last said; `None`: it has none.
        blobless: Whether it has the contents of files only once somebody needs them.
        depth: How many commits of each branch it has; `None`: all.
    """

    FOLDER = "caches"

    default_branch: str | None = None
    blobless: bool = False
    depth: int | None = None

    def repository(self, root: Root) -> Path:
        """Return the bare repository."""
        return root.caches / self.name / "repo.git"
