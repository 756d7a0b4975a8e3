"""How blocks are found, what their comments may say, and what counts as the output that a page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from snippets.checking import CHECKS
from snippets.finding import FLAGS, KEYS, Block, Unclear, blocks_of
from snippets.models import MODELS
from snippets.needs import NEEDS
from snippets.sandbox import alike
from snippets.sessions import commands_of, sessions_of

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
REASONS = {
    "CI runs it",
    "a stack is deployed by the tests of infra/, onto an AWS server on loopback",
    "claude is a program of its own, for a terminal",
    "installing is what has come before",
    "it changes the machine it runs on",
    "it installs from a package index",
    "it needs Docker",
    "it needs a cluster",
    "it needs a role; the tests do it on a server that enforces policies",
    "it needs Redis and PostgreSQL; tests/imports does it on real servers",
    "the tests of infra/ run it, as the CDK has an environment of its own",
    "tests/docs/test_examples.py runs the examples",
    "the tests run it: the demo, and the tests themselves",
    "this is how the tests themselves are run",
}


def blocks(tmp_path: Path, text: str) -> list[Block]:
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    return blocks_of(tmp_path / "page.md", tmp_path)


def test_a_block_says_by_its_language_what_becomes_of_it(tmp_path: Path) -> None:
    found = blocks(tmp_path, "".join(f"```{each}\nx\n```\n" for each in ("python", "sh", "console", "toml", "json")))
    assert [block.kind for block in found] == ["run", "run", "run", "check", "check"]
    assert [block.line for block in found] == [1, 4, 7, 10, 13]


def test_what_no_language_says_a_comment_has_to(tmp_path: Path) -> None:
    (block,) = blocks(tmp_path, "```\nx\n```\n")
    with pytest.raises(Unclear, match=r"page\.md:1: a block in no language"):
        _ = block.kind
    (block,) = blocks(tmp_path, "<!-- snippet: output -->\n```\nx\n```\n")
    assert block.kind == "output"


def test_hidden_lines_run_before_and_after(tmp_path: Path) -> None:
    (block,) = blocks(tmp_path, "<!-- snippet: needs=repo,run\na = 1\nb = 2\n---\nassert c\n-->\n```python\nc\n```\n")
    assert (block.words.before, block.words.after) == ("a = 1\nb = 2", "assert c")
    assert block.words.many("needs") == ("repo", "run")


def test_a_block_in_a_list_is_found_without_its_indentation(tmp_path: Path) -> None:
    (block,) = blocks(tmp_path, "1. Do:\n\n    <!-- snippet:\n    a\n    -->\n\n    ```sh\n    b\n    ```\n")
    assert (block.text, block.words.before) == ("b\n", "a")


def test_what_the_page_says_holds_for_every_block_that_says_nothing_else(tmp_path: Path) -> None:
    first, second = blocks(
        tmp_path,
        "<!-- snippets: session=one model=works like -->\n```sh\na\n```\n"
        "<!-- snippet: session=two -->\n```sh\nb\n```\n",
    )
    assert (first.session, second.session) == ("one", "two")
    assert "like" in second.words.flags
    assert [session.name for session in sessions_of([first, second])] == ["page.md one", "page.md two"]


@pytest.mark.parametrize(
    "text",
    ["<!-- snippet: sessoin=one -->\n```sh\na\n```\n", "<!-- snippet: like -->\nNo block.\n\n```sh\na\n```\n"],
)
def test_a_comment_that_does_nothing_is_a_mistake(tmp_path: Path, text: str) -> None:
    with pytest.raises(Unclear):
        blocks(tmp_path, text)


def test_blocks_inside_blocks_are_none(tmp_path: Path) -> None:
    (block,) = blocks(tmp_path, "<!-- snippet: figure -->\n````md\n<!-- snippet: like -->\n```sh\na\n```\n````\n")
    assert block.kind == "figure"


def test_console_blocks_are_commands_with_their_output() -> None:
    assert list(commands_of("$ a \\\n> b\nx\ny\n$ c\n")) == [("a \\\nb", "x\ny\n"), ("c", "")]


@pytest.mark.parametrize(
    ("expected", "seen", "numbers", "is_alike"),
    [
        ("a\nb\n", "a  \nb", False, True),
        ("a … c", "a b b c", False, True),
        ("a … c", "a b\nc", False, False),
        ("a\n…\nc", "a\nb\nb\nc", False, True),
        ("took 3.5 s", "took 12.25 s", False, False),
        ("took 3.5 s", "took 12.25 s", True, True),
        ("run 5a1d0c1e ended", "run 77aa00ff ended", True, True),
        ("run 5a1d0c1e ended", "run nothing ended", True, False),
        ("a.c", "abc", False, False),
    ],
)
def test_outputs_are_compared_as_the_page_says(expected: str, seen: str, numbers: bool, is_alike: bool) -> None:
    assert alike(expected, seen, numbers=numbers) is is_alike


def test_there_are_few_reasons_not_to_run_a_block() -> None:
    given = {block.words.not_run for page in PAGES for block in blocks_of(page, ROOT)} - {None}
    assert given == REASONS


def test_the_convention_is_written_down() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Snippets")[1]
    documented = {
        word for first in re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE) for word in re.findall(r"[a-z]+", first)
    }
    assert documented >= FLAGS | KEYS


def test_everything_that_may_be_named_is_described_and_used() -> None:
    used = [block for page in PAGES for block in blocks_of(page, ROOT)]
    assert all(each.__doc__ for each in [*NEEDS.values(), *CHECKS.values(), *MODELS.values()])
    assert {name for block in used for name in block.words.many("needs")} == set(NEEDS)
    assert {block.words.one("model") or "remembers" for block in used} == set(MODELS)
