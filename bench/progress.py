"""How far a run is, and how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from bench.plan import Step

SURE_AFTER_S = 20.0


class Estimate:
    """When a run will be over, judged by how its steps so far compare with what was expected of them.

    Args:
        steps: All of them.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self._expected_s = sum(step.seconds for step in steps)
        self._done_s = 0.0
        self._began = self._counted = time.monotonic()

    def finished(self, step: Step) -> None:
        """Take note that a step is done."""
        self._done_s += step.seconds
        self._counted = time.monotonic()

    def left_s(self) -> float:
        """Return how many seconds are left."""
        used_s = self._counted - self._began
        pace = used_s / self._done_s if self._done_s > SURE_AFTER_S else 1.0
        return max((self._expected_s - self._done_s) * pace - (time.monotonic() - self._counted), 0.0)

    def words(self) -> str:
        """Return it for people."""
        minutes, seconds = divmod(round(self.left_s()), 60)
        return f"about {minutes}:{seconds:02} left"


class _Left(ProgressColumn):
    def __init__(self, estimate: Estimate) -> None:
        super().__init__()
        self._estimate = estimate

    def render(self, task: Task) -> Text:  # noqa: ARG002  # rich's signature
        return Text(self._estimate.words())


def run_all(steps: Sequence[Step], console: Console | None = None) -> None:
    """Run steps and show how far they are: as a bar, or a line for each where there is no terminal."""
    console, estimate = console or Console(stderr=True), Estimate(steps)
    bar = (TextColumn("{task.description:36}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*bar, _Left(estimate), console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(steps))
        for number, step in enumerate(steps, 1):
            progress.update(task, description=step.name)
            if not console.is_terminal:
                console.print(f"{number}/{len(steps)} {step.name} ({estimate.words()})", highlight=False)
            step.run()
            estimate.finished(step)
            progress.advance(task)
