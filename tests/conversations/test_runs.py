"""Which run a word stands for, and what is only on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from everturn.conversations.runs import LocalJournals, Named, Runs
from everturn.errors import Conflict, NotFound
from everturn.journal.reading import Journals
from everturn.log.objects import run
from journals import JournalStore

LONG, SHORT = "ab12cd34", "ab12"


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    store = JournalStore(tmp_path)
    for scope, run_id in (("task:1", LONG), ("task:2", SHORT), ("task:2", "ab99")):
        folder = tmp_path / "runs" / run_id
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"task_id": scope, "store": store.url}))
    return Runs(Journals(store.objects, store.url), LocalJournals(tmp_path / "runs", store.url))


def test_a_whole_id_stands_for_its_run_though_others_begin_with_it(runs: Runs) -> None:
    assert run(runs.find(SHORT)) == Named("task:2", SHORT)
    assert run(runs.choose("task:2", SHORT)).run_id == SHORT


def test_the_beginning_of_an_id_stands_for_the_only_run_that_has_it(runs: Runs) -> None:
    assert run(runs.find(LONG[:5])) == Named("task:1", LONG)
    with pytest.raises(Conflict, match=f"ab stands for 3 runs: {LONG} .task:1., {SHORT} .task:2., ab99"):
        run(runs.find("ab"))
    with pytest.raises(Conflict, match="stands for 2 runs"):
        run(runs.choose("task:2", "ab"))
    for word in ("", "x"):
        with pytest.raises(NotFound):
            run(runs.choose("task:2", word))
