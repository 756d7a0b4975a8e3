"""Sessions: the blocks of a page that run one after the other in one sandbox."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from everturn.testing import LoopbackS3
from snippets.checking import check
from snippets.finding import Block
from snippets.needs import NEEDS
from snippets.sandbox import TIMEOUT_S, Sandbox, alike, sandbox

PROMPT = "$ "
MORE = "> "


@dataclass(frozen=True)
class Session:
    """Blocks of a page that belong together."""

    name: str
    blocks: Sequence[Block]

    @property
    def runs(self) -> bool:
        """Whether a program is run; otherwise the blocks are only looked at."""
        return not all(block.kind in {"check", "figure", "not run"} for block in self.blocks)

    def run(self, server: LoopbackS3, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Run all blocks, or check them.

        Raises:
            AssertionError: A block does not do what the page says.
        """
        if not self.runs:
            for block in self.blocks:
                if block.kind == "check":
                    check(block, folder, monkeypatch)
            return
        model = next((block.words.one("model") for block in self.blocks if block.words.one("model")), "remembers")
        needs = dict.fromkeys(name for block in self.blocks for name in block.words.many("needs"))
        with sandbox(folder / "sandbox", server, model, _free_port()) as place:
            for name in needs:
                NEEDS[name](place)
            for number, block in enumerate(self.blocks):
                checked = folder / f"checked-{number}"
                checked.mkdir()
                checking = partial(check, folder=checked, monkeypatch=monkeypatch)
                _step(block, self.blocks[:number], place, checking)


def sessions_of(blocks: Sequence[Block]) -> Iterator[Session]:
    """Put blocks of one page together."""
    for name in dict.fromkeys(block.session for block in blocks):
        mine = [block for block in blocks if block.session == name]
        yield Session(f"{mine[0].page} {name}", mine)


def commands_of(console: str) -> Iterator[tuple[str, str]]:
    """Return the commands of a `console` block, each with the output that the block shows."""
    command, output = "", ""
    for line in console.splitlines():
        if line.startswith(PROMPT):
            if command:
                yield command, output
            command, output = line.removeprefix(PROMPT), ""
        elif line.startswith(MORE) and not output and command.endswith("\\"):
            command += "\n" + line.removeprefix(MORE)
        else:
            output += f"{line}\n"
    yield command, output


def _step(block: Block, before: Sequence[Block], place: Sandbox, checking: Callable[[Block], None]) -> None:
    kind = block.kind
    if kind == "file":
        target = place.folder / block.words.one("file")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(place.translated(block.text), encoding="utf-8")
    elif kind == "output":
        _assert_alike(block, block.text, place.output)
    elif kind == "check":
        checking(block)
    elif kind == "run":
        _run(block, before, place)
        for text in block.words.values.get("says", ()):
            assert text in place.output, f"{block.place}: {text!r} is not in\n{place.output}"


def _run(block: Block, before: Sequence[Block], place: Sandbox) -> None:
    words = block.words
    timeout_s = float(words.one("timeout") or TIMEOUT_S)
    if block.language == "python":
        earlier = [b.text for b in before if b.language == "python" and b.kind == "run"]
        texts = earlier if "continues" in words.flags else []
        whole = "\n".join([*texts, words.before, block.text, words.after])
        _assert_code(block, place.python(whole, block.place, timeout_s), place)
        return
    if words.before:
        _assert_code(block, place.sh(words.before, timeout_s), place, 0)
    if "background" in words.flags:
        place.background(block.text, words.one("ready"), timeout_s)
    elif block.language == "console":
        for command, output in commands_of(block.text):
            _assert_code(block, place.sh(command, timeout_s, strict=not words.one("exits")), place)
            _assert_alike(block, output, place.output)
    else:
        _assert_code(block, place.sh(block.text, timeout_s, strict=not words.one("exits")), place)
    if words.after:
        output = place.output
        _assert_code(block, place.sh(words.after, timeout_s), place, 0)
        place.output = output


def _assert_code(block: Block, code: int, place: Sandbox, expected: int | None = None) -> None:
    wanted = int(block.words.one("exits") or 0) if expected is None else expected
    assert code == wanted, f"{block.place} ended with {code}:\n{place.output}"


def _assert_alike(block: Block, expected: str, seen: str) -> None:
    numbers = "like" in block.words.flags
    assert alike(expected, seen, numbers=numbers), f"{block.place} shows\n{expected}\nbut it was\n{seen}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
