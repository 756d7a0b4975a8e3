"""A conversation on a terminal, for a person to read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import CodeBlock, Markdown, TableElement
from rich.rule import Rule
from rich.segment import Segment, Segments
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from everturn.cli.output import plain
from everturn.conversations import wording
from everturn.conversations.conversation import (
    Branch,
    Content,
    Conversation,
    Media,
    Notice,
    Result,
    Step,
    Thinking,
    ToolCall,
    Turn,
)

WIDEST = 110
RESULT_LINES = 4
PATCH_LINES = 14
THOUGHT_LENGTH = 200
INDENT = 2
_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
_STRIKING = ("cut off", "interrupted", "prompt")
_PATCH_STYLES = {"+": "green", "-": "red", "@": "cyan"}


class Printer:
    """Prints conversations.

    Args:
        console: Where.
        full: Unfold what tools were called with and what they answered, and what the agent thought and was told.
        agents: Show what subagents said and did.
        branches: Show what was taken back.
    """

    def __init__(self, console: Console, *, full: bool, agents: bool, branches: bool) -> None:
        self._console = console
        console.push_theme(Theme({"markdown.code": "bold magenta"}))
        self._full = full
        self._agents = agents
        self._branches = branches
        self._options = console.options
        self._width = min(console.width, WIDEST)
        self._gap_wanted = False
        self._day = ""

    def show(self, found: Conversation, *, last: int | None = None) -> None:
        """Print the turns, or only the last ones."""
        turns = found.turns if last is None else found.turns[len(found.turns) - min(last, len(found.turns)) :]
        if len(turns) < len(found.turns):
            left_out = wording.plural(len(found.turns) - len(turns), "earlier turn")
            self._print(Text(f"… {left_out}", style="dim"), 0)
        first = turns[0].number if turns else 1  # all of it may have been taken back
        self._show_branches(branch for branch in found.branches if branch.after_turn < first and last is None)
        for turn in turns:
            self._show_turn(turn, 0)
            self._show_branches(branch for branch in found.branches if branch.after_turn == turn.number)
        for agent in found.agents:
            self._print(_words(f"◆ {agent.name or 'subagent'}", "magenta", wording.agent_line(agent)), 0)
            self._show_agent(agent, 0)

    def finish(self, rows: Iterable[tuple[str, str]]) -> None:
        """Print what it comes to."""
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(name, _text(value))
        self._gap_wanted = True
        self._print(Rule(style="dim"), 0)
        self._print(table, 0)

    def _show_branches(self, branches: Iterable[Branch]) -> None:
        for branch in branches if self._branches else ():
            where = f"after turn {branch.after_turn}" if branch.after_turn else "at the beginning"
            self._print(Text(f"↶ taken back {where}:", style="yellow"), INDENT)
            for turn in branch.turns:
                self._show_turn(turn, INDENT)

    def show_heading(self, title: str, facts: Iterable[str]) -> None:
        """Print a line above turns, with what is to be said of all of them."""
        head = _text(wording.one_line(title), "bold").append("  ")
        head.append(_text(wording.one_line(" · ".join(facts)), "not bold dim"))
        self._gap_wanted = True
        self._print(Rule(head, characters="━", align="left", style="dim"), 0)

    def show_line(self, text: str, style: str = "dim", indent: int = 0) -> None:
        """Print a line beside turns."""
        self._gap_wanted = True
        self._print(_text(wording.one_line(text), style), indent)

    def _show_turn(self, turn: Turn, indent: int) -> None:
        self.show_prompt(turn, indent)
        for step in turn.steps:
            self.show_step(step, indent + INDENT)

    def show_prompt(self, turn: Turn, indent: int = 0) -> None:
        """Print how a turn begins."""
        head = Text(f"{turn.number} ", style="bold").append(wording.title(turn), style="bold cyan")
        told = " · ".join([*self._when(turn), *wording.facts(turn)])
        head.append(f"  {told}" if told else "", style="not bold dim")
        self._gap_wanted = True
        self._print(Rule(head, align="left", style="dim"), indent)
        if turn.origin == "compaction" and not self._full:
            self._print(Text("what came before was summed up for the agent", style="dim"), indent + INDENT)
        else:
            for content in turn.prompt:
                self._print(_prompt(content), indent + (INDENT if isinstance(content, Media) else 0))
        self._show_attachments(turn, indent)

    def _when(self, turn: Turn) -> list[str]:
        """Return the time of a turn, with the day where it is another than before."""
        day, before = wording.day(turn.started), self._day
        self._day = day or before
        return (
            [f"{day} {wording.clock(turn.started)}" if day != before else wording.clock(turn.started)] if day else []
        )

    def _show_attachments(self, turn: Turn, indent: int) -> None:
        named = [f"{each.what} {each.name}" for each in turn.attachments if each.name]
        beside = named + list({each.what: None for each in turn.attachments if not each.name and self._full})
        if beside:
            self._print(_text(wording.one_line("beside it: " + ", ".join(beside)), "dim"), indent + INDENT)

    def show_step(self, step: Step, indent: int = INDENT) -> None:
        """Print something that was said or done in a turn."""
        if isinstance(step, ToolCall):
            self._show_call(step, indent)
        elif isinstance(step, Thinking):
            thought = step.text if self._full else wording.cut(wording.one_line(step.text), THOUGHT_LENGTH)
            if thought:
                self._print(_text(thought, "dim italic"), indent)
        elif isinstance(step, Notice):
            self._show_notice(step, indent)
        elif isinstance(step, Media):
            self._print(_media(step), indent)
        elif step.text.strip():
            self._gap_wanted = True
            self._print(_markdown(step.text), indent)
            self._gap_wanted = True

    def _show_notice(self, notice: Notice, indent: int) -> None:
        if wording.is_quiet(notice) and not self._full:
            return
        text = notice.text if self._full else wording.cut(wording.one_line(notice.text), THOUGHT_LENGTH)
        style = "red" if notice.is_error else "yellow" if notice.about in _STRIKING else "dim"
        self._print(_words(f"· {notice.about}", style, text), indent)

    def _show_call(self, call: ToolCall, indent: int) -> None:
        self.show_call(call, indent)
        if call.agent is not None:
            self._print(_text(wording.agent_line(call.agent), "dim"), indent + INDENT)
            self._show_agent(call.agent, indent)
        if call.result is None:
            self._print(Text("no answer is stored", style="yellow"), indent + INDENT)
        elif call.agent is None or self._full:
            self.show_result(call.result, indent + INDENT)

    def show_call(self, call: ToolCall, indent: int = INDENT) -> None:
        """Print that a tool was called, and with what."""
        style = "red" if wording.failed(call) else "cyan"
        mark = "✗" if wording.failed(call) else "◆" if call.agent else "▸"
        line = _words(f"{mark} {wording.one_line(call.name)}", style, wording.call_line(call))
        self._print(self._cut_to_fit(line, indent), indent)
        if self._full:
            self._print(_text(wording.call_details(call), "dim"), indent + INDENT)

    def _show_agent(self, agent: Conversation, indent: int) -> None:
        if self._agents:
            for turn in agent.turns:
                self._show_turn(turn, indent + 2 * INDENT)
            self._gap_wanted = True

    def show_result(self, result: Result, indent: int = 2 * INDENT) -> None:
        """Print what a tool has answered."""
        if result.patch:
            self._show_patch(result.patch, indent)
            return
        style = "red" if result.is_error else "dim"
        lines, left_out = self._fold(wording.clean(result.text).strip("\n").split("\n"), RESULT_LINES)
        for line in lines if any(line.strip() for line in lines) else ():
            text = _text(line.expandtabs(4), style)
            self._print(text if self._full else self._cut_to_fit(text, indent), indent)
        self._tell_left_out(left_out, indent)
        for content in result.content:
            if isinstance(content, Media):
                self._print(_media(content), indent)

    def _show_patch(self, patch: tuple[str, ...], indent: int) -> None:
        lines, left_out = self._fold(patch, PATCH_LINES)
        for line in lines:
            self._print(_text(wording.clean(line).expandtabs(4), _PATCH_STYLES.get(line[:1], "dim")), indent)
        self._tell_left_out(left_out, indent)

    def _fold(self, lines: list[str] | tuple[str, ...], limit: int) -> tuple[list[str], int]:
        shown, left_out = (lines, 0) if self._full else wording.folded(lines, limit)
        return list(shown), left_out

    def _tell_left_out(self, left_out: int, indent: int) -> None:
        if left_out:
            self._print(Text(f"… {wording.plural(left_out, 'more line')}", style="dim"), indent)

    def _cut_to_fit(self, line: Text, indent: int) -> Text:
        line.truncate(max(self._width - indent, 10), overflow="ellipsis")
        return line

    def _print(self, what: RenderableType, indent: int) -> None:
        """Print something as far in as that, without spaces at the end of lines and without blank lines around."""
        options = self._options.update(width=max(self._width - indent, 10))
        lines = [_trimmed(line) for line in self._console.render_lines(what, options, pad=False)]
        while lines and not lines[-1]:
            lines.pop()
        while lines and not lines[0]:
            lines.pop(0)
        if not lines:
            return
        if self._gap_wanted:
            self._console.print()
        self._gap_wanted = False
        segments = [[Segment(" " * indent if line else ""), *line, Segment.line()] for line in lines]
        self._console.print(Segments(segment for line in segments for segment in line), end="", soft_wrap=True)


class _QuietCode(CodeBlock):
    """Code without a frame of blank lines and without a background."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip()
        yield Syntax(code, self.lexer_name, theme=self.theme, word_wrap=True, background_color="default")


class _QuietTable(TableElement):
    """A table without blank lines around it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in super().__rich_console__(console, options):
            if isinstance(table, Table):
                table.show_edge = False
            yield table


class _QuietMarkdown(Markdown):
    """Markdown in which HTML is text, and links are shown with where they lead."""

    elements: ClassVar = {
        **Markdown.elements,
        "fence": _QuietCode,
        "code_block": _QuietCode,
        "table_open": _QuietTable,
    }


def _trimmed(line: list[Segment]) -> list[Segment]:
    """Return a line without the spaces at its end."""
    kept = list(line)
    while kept and not kept[-1].text.strip():
        kept.pop()
    return [*kept[:-1], Segment(kept[-1].text.rstrip(), kept[-1].style)] if kept else []


def _text(text: str, style: str = "") -> Text:
    return Text(plain(wording.clean(text)), style=style)


def _words(name: str, style: str, text: str) -> Text:
    return Text().append(_text(name, style)).append(" ").append(_text(text, "dim"))


def _prompt(content: Content) -> RenderableType:
    """Return what was said to the agent, as it was said, behind a bar."""
    if isinstance(content, Media):
        return _media(content)
    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column(overflow="fold")
    for line in wording.clean(content.text).strip("\n").split("\n"):
        table.add_row(Text("▌", style="cyan"), _text(line, "bold"))
    return table


def _media(media: Media) -> Text:
    return _text(f"[{wording.media_line(media)}]", "magenta")


def _markdown(text: str) -> Markdown:
    text = plain(wording.clean(text))
    shown = _QuietMarkdown("", code_theme="ansi_dark", hyperlinks=False)
    shown.parsed = _PARSER.parse(text)
    return shown
