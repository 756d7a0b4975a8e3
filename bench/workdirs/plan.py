"""What is measured of workdirs, how often, in which order.

Nothing is deleted before the eviction, which is the last. There are file systems on which creating files takes ten
times as long for a minute after many were deleted: ext4 without a journal passes over each inode that was just freed.
"""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from bench.plan import Row, Step, turned
from bench.workdirs.evicting import Evicting
from bench.workdirs.repository import Origin, Shape, run
from bench.workdirs.ways import WAYS, Ours, Way
from everturn.housekeeping.disk import measure

MAIN_WAYS = ("clones", "linked", "workdirs", "sparse")
OTHER_WAYS = ("parallel", "shallow", "local")
AGAIN = ("kept", "same", "newer", "unsaved")
AT_ONCE = ("clones", "workdirs", "sparse")
CHANGED = 300
OPEN_S = {"clones": 6, "parallel": 6, "shallow": 6, "local": 3, "linked": 2, "workdirs": 2, "sparse": 0.3}
BUILT_BYTES = 50_000_000

Result = TypeVar("Result")


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        shape: The repository.
        agents: How many places of each kind are made.
        few: How many, of kinds that are only for comparison.
        again: How often each of the agents opens its workdir again, in each situation.
        at_once: How many agents begin at the same moment.
        repeats: How often they do.
    """

    shape: Shape
    agents: int
    few: int
    again: int
    at_once: int
    repeats: int

    def as_row(self) -> Row:
        """Return it as JSON has it."""
        return asdict(self)


FULL = Sizes(Shape(20_000, 10_000, 60, 300), agents=20, few=3, again=2, at_once=8, repeats=1)
QUICK = Sizes(Shape(2_000, 10_000, 10, 100), agents=5, few=2, again=2, at_once=4, repeats=1)
TINY = Sizes(Shape(100, 2_000, 3, 10), agents=4, few=1, again=1, at_once=2, repeats=1)


@dataclass
class Plan:
    """One run of the benchmark.

    Args:
        folder: Where everything happens; empty.
        sizes: How much.

    Attributes:
        samples: What was measured, by what it is of.
    """

    folder: Path
    sizes: Sizes
    samples: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._origin = Origin(self.folder / "shop.git", self.sizes.shape)
        self._ways: dict[str, Way] = {}

    def steps(self) -> Iterator[Step]:
        """Yield everything that is to be done. What is compared takes turns."""
        scale = self.sizes.shape.files / FULL.shape.files
        yield Step("make the repository", 40 * scale, self._make)
        for number in range(self.sizes.agents):
            others = OTHER_WAYS if number < self.sizes.few else ()
            for name in turned([*MAIN_WAYS, *others], number):
                yield Step(f"open {name} {number + 1}", 1 + OPEN_S[name] * scale, partial(self._open, name, number))
        yield Step("room on the disk", 5 * scale, self._weigh)
        for repeat in range(self.sizes.repeats):
            for name in turned(AT_ONCE, repeat):
                seconds = self.sizes.at_once * OPEN_S[name] * scale * 2
                yield Step(f"{self.sizes.at_once} {name} at once", 1 + seconds, partial(self._at_once, name, repeat))
        for again in range(self.sizes.again):
            for number in range(self.sizes.agents):
                yield Step(f"open again {number + 1}", 2 * scale, partial(self._open_again, number, again))
        yield Step("eviction", 30 * scale, self._evict)

    def _make(self) -> None:
        self._origin.make()
        sizes = run(["ls-tree", "-r", "--long", "HEAD"], self._origin.path).splitlines()
        self.samples["repository"].append(
            {
                "files": len(sizes),
                "tree_bytes": sum(int(line.split()[3]) for line in sizes),
                "stored_bytes": measure(self._origin.path).bytes,
            }
        )
        for name in (*MAIN_WAYS, *OTHER_WAYS):
            self._ways[name] = WAYS[name](self._origin, self.folder / name)

    # --- The first time -------------------------------------------------------------------------------------------

    def _open(self, name: str, number: int) -> None:
        way = self._ways[name]
        path = self._measured(f"open {name}", lambda: way.open(number))
        self._verify(path)

    def _weigh(self) -> None:
        for name in (*MAIN_WAYS, *OTHER_WAYS):
            self.samples[f"room {name}"].append(_room(self._ways[name].folder))

    def _verify(self, path: Path) -> None:
        """Make sure that a place is what an agent needs. It is not measured."""
        if run(["rev-parse", "HEAD"], path) != self._origin.head():
            raise RuntimeError(f"{path} does not show what the remote has")
        if run(["status", "--porcelain"], path):
            raise RuntimeError(f"{path} is not clean")

    # --- Once more ------------------------------------------------------------------------------------------------

    def _open_again(self, number: int, again: int) -> None:
        """Open an agent's workdir as it is found in each situation, from the same state of the workdir each time."""
        unsaved = ("unsaved",) if again == 0 and number < self.sizes.few else ()
        for name in turned([name for name in AGAIN if name != "unsaved" or unsaved], number + again):
            ours = self._ours
            issue = ours.hold(number, keep=False)
            issue.close()
            self._leave(issue.path, name)
            workdir = self._measured(f"again {name}", partial(ours.hold, number, keep=name == "kept"))
            workdir.close()
            if workdir.outcome != {"kept": "kept", "unsaved": "new"}.get(name, "reused"):
                raise RuntimeError(f"the workdir was {workdir.outcome}")
            self._verify(workdir.path)

    def _leave(self, path: Path, name: str) -> None:
        """Leave a workdir as the conversation before may leave it, and the remote as it may be by then."""
        (path / "build").mkdir(exist_ok=True)
        (path / "build" / "report.txt").write_text(f"{name}\n", encoding="utf-8")
        if name == "newer":
            self._origin.push(min(CHANGED, self.sizes.shape.files))
        if name == "unsaved":
            (path / "notes.txt").write_text("of nobody else\n", encoding="utf-8")

    @property
    def _ours(self) -> Ours:
        ours = self._ways["workdirs"]
        assert isinstance(ours, Ours)
        return ours

    # --- Many at once ---------------------------------------------------------------------------------------------

    def _at_once(self, name: str, repeat: int) -> None:
        """Have agents begin at the same moment: where nothing is yet, and then once more, where the others are."""
        folder = self.folder / f"at-once-{name}-{repeat}"
        way = WAYS[name](self._origin, folder)
        count = self.sizes.at_once
        for state, first in (("cold", 0), ("warm", count)):
            latencies: list[float] = []
            together = partial(self._together, way, first, latencies)
            for path in self._measured(f"at once {name} {state}", together):
                self._verify(path)
            self.samples[f"at once {name} {state}"][-1]["latencies_s"] = latencies
            if name == "clones":
                break

    def _together(self, way: Way, first: int, latencies: list[float]) -> list[Path]:
        def open_one(number: int) -> Path:
            path = way.open(number)
            latencies.append(time.perf_counter() - began)
            return path

        count = self.sizes.at_once
        with ThreadPoolExecutor(count) as pool:
            began = time.perf_counter()
            return list(pool.map(open_one, range(first, first + count)))

    def _evict(self) -> None:
        built_bytes = BUILT_BYTES * self.sizes.shape.files // FULL.shape.files
        self.samples["eviction"].append(Evicting(self._ours, self.sizes.agents, built_bytes).run())

    def _measured(self, name: str, operation: Callable[[], Result]) -> Result:
        cpu_s, began = _cpu_s(), time.perf_counter()
        result = operation()
        wall_s = time.perf_counter() - began
        self.samples[name].append({"wall_s": wall_s, "cpu_s": _cpu_s() - cpu_s})
        return result


def _cpu_s() -> float:
    """Return the processor time of this process and of all that it has started and that has ended."""
    ours, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return ours.ru_utime + ours.ru_stime + theirs.ru_utime + theirs.ru_stime


def _room(folder: Path) -> Row:
    found = measure(folder)
    return {"bytes": found.bytes, "files": found.files}
