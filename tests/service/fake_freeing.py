"""A Freeing whose workdirs are files: each is removed once, for real, whoever asks how often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everturn.forges.base import Happening
from everturn.housekeeping.removal import Fate


@dataclass(frozen=True)
class FakeFreed:
    """What came of it."""

    fates: tuple[Fate, ...] = ()
    waiting: tuple[str, ...] = ()


class FileFreeing:
    """An issue's workdir is the file of its number; it is busy while there is one that ends in `.busy`.

    Args:
        folder: Where the files are.
        removed: Is told, before anybody knows, what was removed.
    """

    def __init__(self, folder: Path, removed: Callable[[str], None] = lambda name: None) -> None:
        self._folder = folder
        self._removed = removed
        self.looks = 0
        self.failure: Exception | None = None
        self.before_free: Callable[[Happening], None] = lambda happening: None

    def hold(self, number: str, *, busy: bool = False) -> None:
        """Make a workdir."""
        (self._folder / number).touch()
        if busy:
            (self._folder / f"{number}.busy").touch()

    def end_run(self, number: str) -> None:
        """Let the run in it end."""
        (self._folder / f"{number}.busy").unlink()

    def look(self) -> Any:
        """See `Freeing.look`."""
        self.looks += 1
        return frozenset(path.name for path in self._folder.iterdir())

    def free(self, happening: Happening, holdings: Any) -> FakeFreed:
        """See `Freeing.free`."""
        self.before_free(happening)
        if self.failure is not None:
            raise self.failure
        name = happening.number or ""
        if name not in holdings:
            return FakeFreed()
        if (self._folder / f"{name}.busy").exists():
            return FakeFreed((Fate("workdir", name, "kept", ("a run is at work in it",)),), (f"{name}: a run",))
        try:
            (self._folder / name).unlink()
        except FileNotFoundError:
            return FakeFreed()
        self._removed(name)
        return FakeFreed((Fate("workdir", name, "removed", ("its issue was closed",)),))
