"""The fold of a run: its events to rows (docs/mirrors.md). Pure: no database, no time, no randomness."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from everturn.journal import events as known
from everturn.mirrors.base import Line
from everturn.mirrors.blocks import KINDS, WHOLE, Block, Key, OpenBlocks
from everturn.mirrors.rows import RUN, RUN_COUNTS, TOOL_CALL, TURN, Row, Rows
from everturn.mirrors.usage import Usage, plus, tokens_of
from everturn.mirrors.values import (
    Unreadable,
    amount,
    asked,
    clean,
    flag,
    members,
    moment,
    needed,
    number,
    pieces,
    text_id,
    told,
    words,
)

FOLD_VERSION = 2  # another number has every mirror rebuilt: to be raised whenever the same events give other rows

MESSAGE_CHARS = 1000
_FILES = {
    "Read": ("file_path", "read"),
    "Edit": ("file_path", "edit"),
    "MultiEdit": ("file_path", "edit"),
    "Write": ("file_path", "write"),
    "NotebookEdit": ("notebook_path", "edit"),
    "NotebookRead": ("notebook_path", "read"),
}


class RunFold:
    """The fold of one run, from its start or from where a state was stored.

    Args:
        run_id: The run.
        work_key: The scope of its journal.
        state: What `state` returned.
    """

    def __init__(self, run_id: str, work_key: str, state: bytes | None = None) -> None:
        self.run_id = run_id
        self.seq = 0
        self.missing: list[list[int]] = []
        self._at_ms = 0
        self._run: dict[str, Any] = {"run_id": run_id, "work_key": work_key, **dict.fromkeys(RUN_COUNTS, 0)}
        self._turn: dict[str, Any] | None = None
        self._calls: dict[str, list[Any]] = {}
        self._usage = Usage()
        self._blocks = OpenBlocks()
        self._rows = Rows()
        if state is not None:
            self._restore(orjson.loads(state))
        self._rows.obsolete = self._shown()

    def state(self) -> bytes:
        """Return what it takes to go on with the next event."""
        return orjson.dumps(
            {
                "seq": self.seq,
                "missing": self.missing,
                "at_ms": self._at_ms,
                "run": self._run,
                "turn": self._turn,
                "calls": self._calls,
                "usage": dataclasses.asdict(self._usage),
                "blocks": self._blocks.stored(),
            }
        )

    def _restore(self, state: dict[str, Any]) -> None:
        self.seq, self.missing, self._at_ms = state["seq"], state["missing"], state["at_ms"]
        self._run, self._turn, self._calls = state["run"], state["turn"], state["calls"]
        self._usage = Usage(**state["usage"])
        self._blocks = OpenBlocks(state["blocks"])

    def take(self, lines: Iterable[Line]) -> None:
        """Fold lines that follow on those before. Each has a usable head, and a higher number than the last."""
        kinds, blocks = KINDS, self._blocks.found
        seq = self.seq
        count = 0
        line: Line | None = None
        for line in lines:
            count += 1
            if line["seq"] != seq + 1:
                self._note_gap(seq + 1, line["seq"] - 1)
            seq = self.seq = line["seq"]
            kind = kinds.get(line["type"])
            if kind is not None:  # most lines are pieces, so they take the shortest way
                try:
                    block = blocks.get((line["parent"], line["message_id"], line["index"], kind))
                    if block is not None and type(line["text"]) is str and line["v"] == known.VERSION:
                        block[3].append(line["text"])
                        continue
                except (LookupError, TypeError):
                    pass
            self._take(line)
        if line is not None:
            self._at_ms = line["at_ms"]
        self._run["events"] += count
        self._rows.folded += count

    @property
    def pending_chars(self) -> int:
        """How long the texts are that `drain` returns."""
        return self._rows.chars

    def drain(self) -> Rows:
        """Return what has changed since the last time."""
        rows, self._rows = self._rows, Rows(obsolete=self._shown())
        rows.folded -= rows.unknown + rows.unreadable
        for key, block in self._blocks.found.items():
            rows.texts += self._partial(key, block)
        rows.chars += self._rows.chars
        self._rows.chars = 0
        if self._turn is not None:
            rows.turns[self._turn["turn"]] = self._turn_row(self._turn, self.seq)
        rows.run = self._run_row()
        rows.model_usage = [
            (self.run_id, model, *tokens, cost) for model, (tokens, cost) in self._usage.by_model().items()
        ]
        return rows

    def _shown(self) -> list[int]:
        return [block[0] for block in self._blocks.found.values()]

    def _note_gap(self, first: int, last: int) -> None:
        self.missing.append([first, last])
        self._run["missing_events"] += last - first + 1

    def _take(self, line: Line) -> None:
        handler = _HANDLERS.get(line["type"]) if line["v"] <= known.VERSION else None
        if handler is None:
            self._run["unknown_events"] += 1
            self._rows.unknown += 1
            return
        try:
            handler(self, line)
        except Unreadable:  # raised before anything of the line has counted
            self._run["unreadable_events"] += 1
            self._rows.unreadable += 1

    # --- The run ----------------------------------------------------------------------------------------------------

    def _started(self, line: Line) -> None:
        found = {name: words(line, name) for name in ("session_id", "worker", "cwd", "agent", "repo", "issue")}
        found |= {name: words(line, name) for name in ("task_id", "branch", "previous_run_id")}
        epoch = number(line, "epoch")
        self._run |= {**found, "epoch": epoch, "started_at": moment(line["at_ms"])}

    def _resumed(self, line: Line) -> None:
        took_over, session_id = flag(line, "took_over"), needed(line, "session_id")
        self._usage.go_on_from(amount(line.get("cost_usd")), members(line, "model_usage"))
        self._run |= {"resumed": 1, "took_over": took_over, "session_id": session_id}

    def _began_anew(self, line: Line) -> None:
        self._run |= {"session_id": needed(line, "session_id"), "began_anew": 1}
        self._usage.begin_anew()

    def _init(self, line: Line) -> None:
        found = {name: words(line, name) for name in ("model", "cli_version", "cwd")}
        self._run |= {name: value for name, value in found.items() if value is not None}

    def _shutdown(self, line: Line) -> None:
        self._run["shutdown_reason"] = needed(line, "reason")

    def _ended(self, line: Line) -> None:
        outcome, error = needed(line, "outcome"), words(line, "error")
        self._run |= {"outcome": outcome, "error": error, "ended_at": moment(line["at_ms"])}
        if error is not None:
            self._note_error(line, "run", error)
        for parent in {key[0] for key in self._blocks.found}:
            self._give_up(parent)

    # --- Turns ------------------------------------------------------------------------------------------------------

    def _prompt(self, line: Line) -> None:
        text, resumed = needed(line, "text"), flag(line, "resumed")
        self._give_up(None)
        if self._turn is not None:
            self._rows.turns[self._turn["turn"]] = self._turn_row(self._turn, line["seq"] - 1)
        self._run["turns"] += 1
        self._turn = {
            "turn": self._run["turns"],
            "seq": line["seq"],
            "started_at": moment(line["at_ms"]),
            "resumed": resumed,
            "tokens": [0, 0, 0, 0],
            "usd_before": self._usage.total_usd,
            **dict.fromkeys(("is_error", "model_turns", "tool_calls", "tool_failures"), 0),
        }
        self._note_text(line, "prompt", text)

    def _result(self, line: Line) -> None:
        found: dict[str, Any] = {"outcome": needed(line, "subtype"), "is_error": flag(line, "is_error")}
        found["stop_reason"] = words(line, "stop_reason")
        sums = {name: number(line, name) or 0 for name in ("model_turns", "duration_ms", "duration_api_ms")}
        text, usage, models = words(line, "text"), members(line, "usage"), members(line, "model_usage")
        self._give_up(None)
        self._usage.note_result(amount(line.get("cost_usd")), usage, models, self._run.get("model"))
        self._run["model_turns"] += sums["model_turns"]
        turn = self._turn
        if turn is not None:
            turn |= {**found, "ended_at": moment(line["at_ms"])}
            turn |= {name: (turn.get(name) or 0) + value for name, value in sums.items()}
            turn["tokens"] = plus(turn["tokens"], tokens_of(usage))
            turn["usd"] = self._usage.total_usd
        if found["is_error"]:
            self._note_error(line, "result", text or asked(line.get("errors")) or found["outcome"])

    def _turn_row(self, turn: dict[str, Any], last_seq: int) -> Row:
        tokens = plus(turn["tokens"], self._usage.of_turn(turn["turn"]))
        usd = turn.get("usd")
        cost_usd = None if usd is None else max(0.0, usd - (turn["usd_before"] or 0.0))
        names = (*_TOKENS, "run_id", "last_seq", "cost_usd")
        values = dict(zip(names, (*tokens, self.run_id, last_seq, cost_usd), strict=True))
        return tuple((turn | values).get(name) for name in TURN)

    def _run_row(self) -> Row:
        tokens = [0, 0, 0, 0]
        for each, _ in self._usage.by_model().values():
            tokens = plus(tokens, each)
        more = {
            **dict(zip(_TOKENS, tokens, strict=True)),
            "cost_usd": self._usage.total_usd,
            "cost_is_partial": int(self._usage.is_partial),
            "last_event_at": moment(self._at_ms),
        }
        return tuple((self._run | more).get(name) for name in RUN)

    # --- What is said and done --------------------------------------------------------------------------------------

    def _delta(self, line: Line) -> None:
        parent, message_id = words(line, "parent"), words(line, "message_id")
        text, index, kind = needed(line, "text"), number(line, "index"), KINDS[line["type"]]
        if index is None:
            raise Unreadable
        for key, block in self._blocks.give_up(parent, but=message_id):
            self._rows.texts += self._partial(key, block)
        block = self._blocks.found.setdefault(
            (parent, message_id, index, kind), [line["seq"], line["at_ms"], self._number, []]
        )
        block[3].append(text)

    def _said(self, line: Line) -> None:
        text, model, error = needed(line, "text"), words(line, "model"), words(line, "error")
        self._whole(line, model)
        self._note_text(line, WHOLE[line["type"]], text)
        if error is not None:
            self._note_error(line, "model", f"{error}: {text}" if text else error)

    def _stream(self, line: Line) -> None:
        message_id, event = words(line, "message_id"), members(line, "event")
        begun = members(event, "message") if event.get("type") == "message_start" else {}
        usage, model = members(begun or event, "usage"), words(begun, "model")
        if usage and message_id is not None:
            self._usage.note_answer(message_id, self._number, model, usage)

    def _tool_use(self, line: Line) -> None:
        call_id, tool, model = needed(line, "call_id"), needed(line, "name"), words(line, "model")
        text = asked(line.get("input"))
        self._whole(line, model)
        self._count("tool_calls")
        at = moment(line["at_ms"])
        parent = words(line, "parent")
        row = [self.run_id, line["seq"], self._number, call_id, tool, parent, at, None, None, None, None]
        self._calls[call_id] = [line["at_ms"], row]
        self._rows.tool_calls[line["seq"]] = tuple(row)
        self._note_file(line, tool, at)
        self._note_text(line, "tool_input", text, tool)

    def _tool_result(self, line: Line) -> None:
        call_id, is_error, text = needed(line, "call_id"), flag(line, "is_error"), told(line.get("content"))
        words(line, "parent")
        started_ms, row = self._calls.pop(call_id, (0, None))
        tool = None
        if row is not None:
            tool = row[TOOL_CALL.index("tool")]
            ended = (moment(line["at_ms"]), line["at_ms"] - started_ms, is_error, line["seq"])
            row[TOOL_CALL.index("ended_at") :] = ended
            self._rows.tool_calls[row[1]] = tuple(row)
        if is_error:
            self._count("tool_failures")
            self._note_error(line, "tool", text, tool)
        self._note_text(line, "tool_result", text, tool)

    def _user(self, line: Line) -> None:
        text = needed(line, "text")
        words(line, "parent")
        self._note_text(line, "user", text)

    def _mirror_error(self, line: Line) -> None:
        self._note_error(line, "transcript", needed(line, "error"))

    def _rate_limit(self, line: Line) -> None:
        if needed(line, "status") == "rejected":
            self._note_error(line, "rate_limit", asked(members(line, "info")))

    def _damaged(self, line: Line) -> None:
        raise Unreadable(line["seq"])

    def _pass(self, line: Line) -> None:
        """There is nothing in it that a row is made of."""

    # --- What they share --------------------------------------------------------------------------------------------

    @property
    def _number(self) -> int | None:
        return None if self._turn is None else int(self._turn["turn"])

    def _whole(self, line: Line, model: str | None) -> None:
        parent, message_id, usage = words(line, "parent"), words(line, "message_id"), members(line, "usage")
        self._blocks.complete(parent, message_id, WHOLE[line["type"]])
        if usage:
            self._usage.note_answer(message_id, self._number, model, usage)
        if self._turn is not None and parent is None and model is not None:
            self._turn["model"] = model

    def _give_up(self, parent: str | None) -> None:
        for key, block in self._blocks.give_up(parent):
            self._rows.texts += self._partial(key, block)

    def _partial(self, key: Key, block: Block) -> list[Row]:
        seq, at_ms, turn, said = block
        return self._texts(seq, turn, at_ms, key[3], None, key[0], 1, clean("".join(said)))

    def _count(self, what: str) -> None:
        self._run[what] += 1
        if self._turn is not None:
            self._turn[what] += 1

    def _note_error(self, line: Line, kind: str, message: str, tool: str | None = None) -> None:
        self._run["errors"] += 1
        at = moment(line["at_ms"])
        self._rows.errors.append((self.run_id, line["seq"], self._number, at, kind, tool, message[:MESSAGE_CHARS]))

    def _note_file(self, line: Line, tool: str, at: str | None) -> None:
        member, action = _FILES.get(tool, ("", ""))
        given = line.get("input")
        path = given.get(member) if type(given) is dict else None
        if type(path) is str and path:
            cwd = self._run.get("cwd")
            path = clean(path)
            if cwd and path.startswith(f"{cwd}/"):
                path = path[len(cwd) + 1 :] or path
            self._rows.files.append((self.run_id, line["seq"], self._number, path, action, tool, at))

    def _note_text(self, line: Line, kind: str, text: str, tool: str | None = None) -> None:
        parent = words(line, "parent")
        self._rows.texts += self._texts(line["seq"], self._number, line["at_ms"], kind, tool, parent, 0, text)

    def _texts(
        self,
        seq: int,
        turn: int | None,
        at_ms: int,
        kind: str,
        tool: str | None,
        parent: str | None,
        partial: int,
        text: str,
    ) -> list[Row]:
        if not text:
            return []
        self._rows.chars += len(text)
        run_id, at = self.run_id, moment(at_ms)
        return [
            (text_id(at_ms, run_id, seq, piece), run_id, seq, piece, turn, at, kind, tool, parent, partial, said)
            for piece, said in enumerate(pieces(text))
        ]


_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
_HANDLERS: dict[str, Callable[[RunFold, Line], None]] = {
    **dict.fromkeys(known.TYPES, RunFold._pass),
    **dict.fromkeys(KINDS, RunFold._delta),
    known.Started.TYPE: RunFold._started,
    known.Resumed.TYPE: RunFold._resumed,
    known.BeganAnew.TYPE: RunFold._began_anew,
    known.Shutdown.TYPE: RunFold._shutdown,
    known.Ended.TYPE: RunFold._ended,
    known.Prompt.TYPE: RunFold._prompt,
    known.Init.TYPE: RunFold._init,
    known.Stream.TYPE: RunFold._stream,
    known.Assistant.TYPE: RunFold._said,
    known.Thinking.TYPE: RunFold._said,
    known.ToolUse.TYPE: RunFold._tool_use,
    known.ToolResult.TYPE: RunFold._tool_result,
    known.User.TYPE: RunFold._user,
    known.MirrorError.TYPE: RunFold._mirror_error,
    known.RateLimit.TYPE: RunFold._rate_limit,
    known.Result.TYPE: RunFold._result,
    known.Damaged.TYPE: RunFold._damaged,
}
