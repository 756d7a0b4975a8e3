"""Runs as they go on, on a terminal. What is shown is the story (`conversations.story`), piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.text import Text as Line

from everturn.cli.journal import words
from everturn.cli.output import Terminal, plain, printing
from everturn.cli.printer import INDENT, Printer
from everturn.conversations import wording
from everturn.conversations.blocks import Block
from everturn.conversations.conversation import Step, Text, ToolCall, Turn
from everturn.conversations.retelling import Retelling, readable
from everturn.conversations.story import Facts, description_of, end_of, numbered, parent_of
from everturn.conversations.threads import Node
from everturn.conversations.turns import Taken, TurnReader
from everturn.journal.events import Assistant, Ended, Prompt, Result, ToolUse
from everturn.journal.lines import Recorded
from everturn.journal.reading import RunRef

_MARGIN = " " * INDENT


@dataclass(slots=True)
class _Thread:
    """What was said and done by an agent or a subagent, and how much of it is on the terminal."""

    reader: TurnReader
    name: str = ""
    retelling: Retelling = field(default_factory=Retelling)
    turns: list[Turn] = field(default_factory=list)
    read: int = 0
    turn: int = -1
    step: int = 0
    is_hidden: bool = False
    unanswered: list[tuple[int, int]] = field(default_factory=list)

    @property
    def indent(self) -> int:
        return 2 * INDENT if self.name else 0


@dataclass(slots=True)
class _Run:
    """A run that is shown."""

    facts: Facts = field(default_factory=Facts)
    threads: dict[str | None, _Thread] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)
    from_turn: int = 0


class LivePrinter:
    """Prints what happens to a work item, text as the model writes it.

    Args:
        printer: Prints what is whole.
        terminal: Where it prints.
        subagents: Show what subagents say and do.
    """

    def __init__(self, printer: Printer, terminal: Terminal, *, subagents: bool) -> None:
        self._printer = printer
        self._terminal = terminal
        self._subagents = subagents
        self._runs: dict[RunRef, _Run] = {}
        self._at: RunRef | None = None
        self._streaming: Block | None = None
        self._pieces = 0  # of it, how many are on the terminal
        self._is_mid_line = False
        self._last_call = ""

    def take(self, ref: RunRef, events: Sequence[Recorded]) -> None:
        """See `EventPrinter`."""
        with printing():
            for recorded in events:
                self._take(ref, readable(recorded))
            self._catch_up(ref)

    def pass_over(self, ref: RunRef, events: Sequence[Recorded]) -> None:
        """See `EventPrinter`."""
        for recorded in events:
            shown = readable(recorded)
            run = self._read(ref, shown)
            run.from_turn += isinstance(shown.event, Prompt)

    def tell(self, ref: RunRef, text: str) -> None:
        """See `EventPrinter`."""
        with printing():
            self._line(f"{text} in the journal of run {ref.run_id}", "red")

    def _take(self, ref: RunRef, recorded: Recorded) -> None:
        run, event = self._read(ref, recorded), recorded.event
        if isinstance(event, Result | Ended) and parent_of(event) is None:
            self._catch_up(ref)
            self._end_turn(run, event)

    def _read(self, ref: RunRef, recorded: Recorded) -> _Run:
        run = self._runs.setdefault(ref, _Run())
        run.facts = run.facts.after(recorded)
        event, parent = recorded.event, parent_of(recorded.event)
        if isinstance(event, ToolUse):
            run.about[event.call_id] = description_of(event)
        if parent is None or self._subagents:
            if parent not in run.threads:
                run.threads[parent] = self._thread(run, parent)
            run.threads[parent].retelling.add(recorded)
        return run

    def _end_turn(self, run: _Run, event: Result | Ended) -> None:
        thread = run.threads[None]
        if isinstance(event, Ended):
            self._line(*words.ending(run.facts, "ended"))
        elif thread.turns and not thread.is_hidden:
            self._line(words.turn_facts(thread.turns[-1]))

    def _thread(self, run: _Run, parent: str | None) -> _Thread:
        started = run.facts.started
        claims = [Taken(started.epoch, 0)] if started is not None and parent is None else []
        name = "" if parent is None else run.about.get(parent, "") or "subagent"
        return _Thread(TurnReader(lambda _call, _agent: None, claims), name)

    # --- What is new ------------------------------------------------------------------------------------------------

    def _catch_up(self, ref: RunRef, *, is_over: bool = False) -> None:
        """Print what has come of a run.

        Args:
            ref: The run.
            is_over: Whether nothing more is expected of it.
        """
        run = self._runs.get(ref)
        if run is None:
            return
        if ref != self._at:
            self._begin(ref, run)
        for thread in run.threads.values():
            if is_over:
                thread.retelling.close()
            streamed = None if thread.name else self._end_stream()
            entries = thread.retelling.entries()
            nodes = [Node(index, entry) for index, entry in enumerate(entries, thread.read)]
            thread.read += len(nodes)
            thread.turns = list(numbered(thread.reader.read(nodes), resumed=bool(run.facts.prompted)))
            self._show(run, thread, streamed)
            if not thread.name and not thread.is_hidden:
                self._stream(thread.retelling.current)

    def _begin(self, ref: RunRef, run: _Run) -> None:
        before = None if self._at is None else self._runs[self._at]
        if before is not None and self._at is not None and before.facts.ended is None:
            self._catch_up(self._at, is_over=True)
            self._line(*words.ending(before.facts, end_of(before.facts, run.facts), ref.run_id))
        self._at = ref
        self._break_line()
        self._printer.show_heading(words.title(ref), words.beginning(run.facts))

    def _show(self, run: _Run, thread: _Thread, streamed: str | None) -> None:
        """Print the turns and steps that are not on the terminal yet.

        Args:
            run: The run.
            thread: Whose they are.
            streamed: The text that is there already, piece by piece.
        """
        for place in range(max(thread.turn, 0), len(thread.turns)):
            turn = thread.turns[place]
            if place > thread.turn:
                thread.turn, thread.step = place, 0
                thread.is_hidden = turn.number <= run.from_turn and run.from_turn > 0
                self._show_prompt(turn, thread)
            for number, step in enumerate(turn.steps[thread.step :], thread.step):
                if isinstance(step, ToolCall) and step.result is None:
                    thread.unanswered.append((place, number))
                if isinstance(step, Text) and step.text == streamed:
                    streamed = None
                elif not thread.is_hidden:
                    self._show_step(step, thread)
            thread.step = len(turn.steps)
        self._show_results(thread)

    def _show_prompt(self, turn: Turn, thread: _Thread) -> None:
        if thread.is_hidden:
            return
        self._break_line()
        if thread.name:
            self._printer.show_line(f"◆ {thread.name}", "magenta", INDENT)
        if turn.origin != "start":
            self._printer.show_prompt(turn, thread.indent)

    def _show_step(self, step: Step, thread: _Thread) -> None:
        self._break_line()
        if isinstance(step, ToolCall):
            self._printer.show_call(step, thread.indent + INDENT)
            self._last_call = step.call_id
            if step.result is not None:
                self._printer.show_result(step.result, thread.indent + 2 * INDENT)
        else:
            self._printer.show_step(step, thread.indent + INDENT)
            self._last_call = ""

    def _show_results(self, thread: _Thread) -> None:
        """Print what tools have answered meanwhile, under the call, or naming it again if that is further up."""
        for place, number in list(thread.unanswered):
            call = thread.turns[place].steps[number]
            if isinstance(call, ToolCall) and call.result is not None:
                thread.unanswered.remove((place, number))
                if thread.is_hidden:
                    continue
                self._break_line()
                if call.call_id != self._last_call:
                    self._printer.show_call(call, thread.indent + INDENT)
                    self._last_call = call.call_id
                self._printer.show_result(call.result, thread.indent + 2 * INDENT)

    # --- Text as it comes -------------------------------------------------------------------------------------------

    def _stream(self, block: Block | None) -> None:
        """Print the pieces of a block that are not on the terminal yet."""
        if block is None or block.kind != "text" or not block.text.strip():
            return
        if block is not self._streaming:
            self._break_line()
            self._streaming, self._pieces, self._last_call = block, 0, ""
        self._write("".join(block.pieces[self._pieces :]))
        self._pieces = len(block.pieces)

    def _end_stream(self) -> str | None:
        """Print what is left of the block that was streaming, if it is finished, and return all of its text."""
        block = self._streaming
        if block is None or (block.whole is None and not block.is_over):
            return None
        self._streaming = None
        told = block.whole.event if block.whole is not None else None
        text = told.text if isinstance(told, Assistant) else block.text
        shown = "".join(block.pieces[: self._pieces])
        if not text.startswith(shown):  # pieces were lost: all of it is shown once more
            self._break_line()
            return None
        self._write(text[len(shown) :])
        self._break_line()
        return text

    def _write(self, text: str) -> None:
        if not text:
            return
        if not self._is_mid_line:
            self._terminal.print()
        shown = plain(wording.clean(text)).replace("\n", f"\n{_MARGIN}")
        self._terminal.print(Line(shown if self._is_mid_line else _MARGIN + shown), end="", soft_wrap=True)
        self._is_mid_line = True

    def _break_line(self) -> None:
        if self._is_mid_line:
            self._terminal.print()
            self._is_mid_line = False

    def _line(self, text: str, style: str = "dim") -> None:
        self._break_line()
        self._printer.show_line(text, style)
        self._last_call = ""
