"""Long runs, on all cores: `make simulate STEPS=5000000`, or one seed again: `make simulate SEED=123`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import count

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from simulation.oracle import Violation
from simulation.scenario import play

SEEDS_AT_ONCE = 25


@dataclass
class Total:
    """What some seeds came to together."""

    seeds: int = 0
    operations: int = 0
    simulated_s: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: Total) -> None:
        """Add what other seeds came to."""
        self.seeds += other.seeds
        self.operations += other.operations
        self.simulated_s += other.simulated_s
        self.counts += other.counts
        self.violations += other.violations


def play_some(seeds: range) -> Total:
    """Play these seeds, up to the first that breaks a promise."""
    total = Total()
    for seed in seeds:
        try:
            result = play(seed)
        except Violation as violation:
            total.violations.append((seed, str(violation)))
            break
        total.add(Total(1, result.operations, result.simulated_s, result.counts))
    return total


def play_until(steps: int, first: int, workers: int, progress: Progress) -> Total:
    """Play seed after seed until there were so many requests, or a promise was broken."""
    task = progress.add_task("requests", total=steps)
    total = Total()
    blocks: Iterator[range] = (range(at, at + SEEDS_AT_ONCE) for at in count(first, SEEDS_AT_ONCE))
    with ProcessPoolExecutor(workers) as pool:
        waiting: set[Future[Total]] = {pool.submit(play_some, next(blocks)) for _ in range(2 * workers)}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                total.add(future.result())
                progress.update(task, completed=min(total.operations, steps))
                if total.operations < steps and not total.violations:
                    waiting.add(pool.submit(play_some, next(blocks)))
    return total


def show(total: Total, seconds: float, console: Console) -> None:
    """Show what happened, so that one sees that the interesting things did."""
    table = Table("what happened", "times", title="The simulated worlds")
    table.columns[1].justify = "right"
    for name, times in sorted(total.counts.items()):
        table.add_row(name, f"{times:,}")
    console.print(table)
    console.print(
        f"{total.operations:,} requests in {total.seeds:,} worlds, {total.simulated_s / 86_400:,.0f} simulated days, "
        f"in {seconds:.0f} s: {total.operations / seconds:,.0f} requests/s"
    )
    for _, text in total.violations:
        console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
    if not total.violations:
        console.print("No promise was broken.", style="green")


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="simulation", description="Simulate the log protocol.")
    parser.add_argument("--steps", type=int, default=200_000, help="how many requests to the store at least")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="play this seed alone")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="how many processes")
    options = parser.parse_args()
    console = Console()
    started = time.monotonic()
    if options.seed is not None:
        total = play_some(range(options.seed, options.seed + 1))
    else:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            total = play_until(options.steps, options.first, options.workers, progress)
    show(total, time.monotonic() - started, console)
    return 1 if total.violations else 0


if __name__ == "__main__":
    sys.exit(main())
