"""A real browser, and a real service that shows it what a test wants it to see."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from fleets import FakeDesk, app_of, serving
from visitors import Visit, Visitor, visiting

ROOT = Path(__file__).parents[3]
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Start a browser. It goes with its module: while it is there, nothing else can have an event loop here."""
    program = shutil.which("chromium", path="/usr/bin:/usr/local/bin:/bin")
    assert program, "chromium is missing; get it with: make chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def axe() -> str:
    program = ROOT / ".tools" / "axe" / "axe.min.js"
    assert program.is_file(), "axe-core is missing; get it with: make axe"
    return program.read_text(encoding="utf-8")


@pytest.fixture
def visit(chromium: Browser, tmp_path: Path) -> Iterator[Visit]:
    """Return what lets somebody visit the pages of a desk. Whatever their browser complained of fails the test."""
    with ExitStack() as stack:

        def begin(desk: FakeDesk, **options: Any) -> Visitor:
            address = stack.enter_context(serving(app_of(desk, tmp_path)))
            return stack.enter_context(visiting(chromium, address, **options))

        yield begin
