"""Every fenced block of the docs is run, or checked as what it is (CONTRIBUTING.md, "Snippets")."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from everturn.testing import LoopbackS3
from snippets.finding import Unclear, blocks_of
from snippets.sessions import Session, sessions_of

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def parameters() -> Iterator[Any]:
    """Yield the sessions of all pages; a page that the convention does not know yields what is wrong with it."""
    for page in PAGES:
        try:
            for session in sessions_of(blocks_of(page, ROOT)):
                yield pytest.param(session, id=session.name, marks=[pytest.mark.slow] if session.runs else [])
        except Unclear as unclear:
            yield pytest.param(unclear, id=str(page.relative_to(ROOT)))


@pytest.mark.cli
@pytest.mark.timeout(600)
@pytest.mark.parametrize("session", list(parameters()))
def test_the_blocks_of_a_page_do_what_it_says(
    session: Session | Unclear, s3_server: LoopbackS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(session, Unclear):
        raise session
    session.run(s3_server, tmp_path, monkeypatch)
