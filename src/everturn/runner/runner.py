"""`Runner`: hands out runs."""

from __future__ import annotations

from functools import partial

from everturn.clock import Ids
from everturn.runner.conduct import Conduct
from everturn.runner.handle import Mailbox, Progress, Run
from everturn.runner.parts import Parts
from everturn.runner.request import Request
from everturn.runner.signals import process_signals
from everturn.runner.stopping import Stop


class Runner:
    """Carries out runs.

    Args:
        parts: What they are made of.
        ids: Makes the ids of runs.
        handle_signals: Whether signals that would end the program end its runs first.
    """

    def __init__(self, parts: Parts, *, ids: Ids | None = None, handle_signals: bool = True) -> None:
        self._parts = parts
        self._ids = ids or Ids()
        self._handle_signals = handle_signals

    def run(self, request: Request) -> Run:
        """Return a run; it begins when it is iterated.

        Raises:
            Invalid: The request cannot be run. Nothing was touched.
        """
        request.check()
        progress = Progress(self._ids.run_id())
        stop = Stop(self._parts.clock, self._parts.settings.shutdown_grace_s)
        return Run(progress, stop, partial(self._conduct, request, progress, stop))

    async def _conduct(self, request: Request, progress: Progress, stop: Stop, mailbox: Mailbox) -> None:
        forget = process_signals.watch(stop) if self._handle_signals else None
        try:
            await Conduct(self._parts, request, progress, stop, mailbox).run()
        finally:
            if forget is not None:
                forget()
