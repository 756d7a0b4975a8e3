"""Events one by one: as JSON, or in a line each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

from rich.text import Text

from everturn.cli.journal import words
from everturn.cli.output import Terminal, plain, print_json, printing
from everturn.conversations import wording
from everturn.journal.lines import Recorded
from everturn.journal.reading import RunRef


class EventPrinter(Protocol):
    """Prints the events of runs as they come."""

    def take(self, ref: RunRef, events: Sequence[Recorded]) -> None:
        """Print the next events of a run."""

    def pass_over(self, ref: RunRef, events: Sequence[Recorded]) -> None:
        """Take events that come before the first one to print."""

    def tell(self, ref: RunRef, text: str) -> None:
        """Print something that is to be said of a run's journal."""


class JsonPrinter:
    """One object a line.

    Args:
        raw: Print what is stored, and not whose it is.
    """

    def __init__(self, *, raw: bool) -> None:
        self._raw = raw

    def take(self, ref: RunRef, events: Sequence[Recorded]) -> None:
        """See `EventPrinter`."""
        for recorded in events:
            print_json(recorded.raw if self._raw else {"run_id": ref.run_id, **recorded.raw})

    def pass_over(self, ref: RunRef, events: Sequence[Recorded]) -> None:
        """See `EventPrinter`."""

    def tell(self, ref: RunRef, text: str) -> None:
        """Say it on standard error."""
        sys.stderr.write(plain(f"warning: {text} in the journal of run {ref.run_id}") + "\n")


class FlatPrinter:
    """A line for each event, cut to fit.

    Args:
        terminal: Where.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._at: RunRef | None = None

    def take(self, ref: RunRef, events: Sequence[Recorded]) -> None:
        """See `EventPrinter`."""
        with printing():
            for recorded in events:
                self._head(ref)
                line = Text(plain(wording.clean(words.event_line(recorded))))
                if self._terminal.is_terminal:
                    line.truncate(self._terminal.width, overflow="ellipsis")
                self._terminal.print(line, soft_wrap=True)

    def pass_over(self, ref: RunRef, events: Sequence[Recorded]) -> None:
        """See `EventPrinter`."""

    def tell(self, ref: RunRef, text: str) -> None:
        """See `EventPrinter`."""
        with printing():
            self._head(ref)
            self._terminal.print(Text(plain(text), style="red"), soft_wrap=True)

    def _head(self, ref: RunRef) -> None:
        if ref != self._at:
            self._at = ref
            self._terminal.print(Text(plain(words.title(ref)), style="bold"), soft_wrap=True)
