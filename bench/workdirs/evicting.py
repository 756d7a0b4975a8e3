"""Making room among workdirs of which some are in use, some hold unsaved work, and some what was built."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from bench.plan import Row
from bench.workdirs.repository import run
from bench.workdirs.ways import Ours
from everturn.housekeeping.disk import Measurer, measure
from everturn.housekeeping.eviction import Evictor
from everturn.housekeeping.removal import Removal
from everturn.workdirs.records import WorkdirRecord

KINDS = ("live", "unsaved", "built", "built", "idle")  # in turns
_COMMIT = ("-c", "user.name=P", "-c", "user.email=p@example.org", "commit", "--quiet", "-m", "Notes")


@dataclass
class Evicting:
    """One eviction.

    Args:
        ours: The workdirs; each of the agents has one.
        agents: How many agents there are.
        built_bytes: How much a build leaves.
    """

    ours: Ours
    agents: int
    built_bytes: int

    def run(self) -> Row:
        """Measure it, and make sure that nothing went that had to stay.

        Raises:
            RuntimeError: Something did.
        """
        for number in range(self.agents):
            self._leave(number)
        paths = {number: self.ours.path(number) for number in range(self.agents)}
        kinds = {path: _kind(number) for number, path in paths.items()}
        removal = Removal(self.ours.root, self.ours.git, rescuer=self.ours.rescuer, metrics=self.ours.metrics)
        measurer = Measurer(self.ours.root, self.ours.git, self.ours.metrics)
        began = time.perf_counter()
        for number in range(self.agents):
            measurer.workdir(paths[number].name)
        measurer.refresh()
        measured_s = time.perf_counter() - began
        held = [self.ours.hold(number, keep=True) for number, path in paths.items() if kinds[path] == "live"]
        precious = {path: _seen(path, kind) for path, kind in kinds.items() if kind in ("live", "unsaved")}
        quota_bytes, wanted = self._quota(paths)
        evictor = Evictor(self.ours.root, removal, measurer, quota_bytes=quota_bytes, free_bytes=0)
        began, before_bytes = time.perf_counter(), self._total_bytes()
        done = evictor.evict()
        evicted_s = time.perf_counter() - began
        after_bytes = self._total_bytes()
        gone = {number for number, path in paths.items() if not path.exists()}
        if any(_seen(path, kinds[path]) != seen for path, seen in precious.items()):
            raise RuntimeError("eviction touched what is in use, or unsaved")
        if after_bytes > quota_bytes or done.missing_bytes or gone != wanted:
            raise RuntimeError(f"eviction left {after_bytes} bytes of {quota_bytes}, and took {gone}, not {wanted}")
        for workdir in held:
            workdir.close()
        return {
            "measured_s": measured_s,
            "wall_s": evicted_s,
            "quota_bytes": quota_bytes,
            "before_bytes": before_bytes,
            "after_bytes": after_bytes,
            "removed": len(gone),
            "shrunk": sum(fate.action == "shrunk" for fate in done.fates),
            "precious": len(precious),
        }

    def _leave(self, number: int) -> None:
        """Leave a workdir as its agent may leave it, the first one longest ago."""
        workdir = self.ours.hold(number)
        kind = _kind(number)
        if kind in ("built", "live"):
            (workdir.path / "build").mkdir(exist_ok=True)
            (workdir.path / "build" / "program.o").write_bytes(bytes(range(256)) * (self.built_bytes // 256))
        if kind == "unsaved":
            (workdir.path / "notes.txt").write_text("of nobody else\n", encoding="utf-8")
        if kind == "unsaved" and number % 2:
            run(["add", "notes.txt"], workdir.path)
            run([*_COMMIT], workdir.path)
        workdir.close()

    def _quota(self, paths: dict[int, Path]) -> tuple[int, set[int]]:
        """Return a quota, and whose workdirs have to go so that it is kept: half of those that may."""
        idle = [number for number in paths if _kind(number) in ("built", "idle")]
        wanted = idle[: (len(idle) + 1) // 2]
        records = {number: WorkdirRecord.read(self.ours.root, path.name) for number, path in paths.items()}
        built = {number: record.ignored_bytes or 0 for number, record in records.items() if record is not None}
        trees = {number: measure(paths[number]).bytes - built[number] for number in wanted}
        going = sum(size for number, size in built.items() if _kind(number) != "live") + sum(trees.values())
        return self._total_bytes() - going + trees[wanted[-1]] // 2, set(wanted)

    def _total_bytes(self) -> int:
        root = self.ours.root
        return sum(measure(path).bytes for path in (*root.trees.iterdir(), *root.caches.glob("*/")))


def _kind(number: int) -> str:
    return KINDS[number % len(KINDS)]


def _seen(path: Path, kind: str) -> tuple[str, str, str]:
    """Return what is to stay as it is: all that there is where a run is at work, or else what git does not ignore."""
    listed = ["ls-files", "--cached", "--others", *(() if kind == "live" else ("--exclude-standard",))]
    return run(["rev-parse", "HEAD"], path), run(["status", "--porcelain"], path), run(listed, path)
