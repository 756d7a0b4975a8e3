"""The mirror that the service keeps up to date says what it cannot take in."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from prometheus_client import CollectorRegistry

from everturn.clock import ManualClock
from everturn.journal.reading import RunRef
from everturn.runtime import open_transcripts
from everturn.service.views.upkeep import WHOLE_PAUSE_S, Upkeep
from everturn.telemetry import Metrics
from served import settings_at

FIRST_PART = "0000000001.jsonl.zst"


def test_damaged_journals_are_told_once_while_they_are_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_at(tmp_path, store=(tmp_path / "store").as_uri())
    open_transcripts(settings, "task:t")
    clock = ManualClock()
    upkeep = Upkeep(settings, clock, Metrics(CollectorRegistry()))
    told = []
    for number in (1, 1, 2):
        place = tmp_path / "store" / RunRef("task:t", f"run-{number}").folder
        place.mkdir(parents=True, exist_ok=True)
        (place / FIRST_PART).write_bytes(b"rubbish")
        caplog.clear()
        upkeep.keep_up()
        lines = [orjson.loads(record.getMessage()) for record in caplog.records]
        told.append([line["count"] for line in lines if line["event"] == "journals_damaged"])
        clock.advance(2 * WHOLE_PAUSE_S)
    upkeep.close()
    assert told == [[1], [], [2]]
    assert upkeep.state.problem is None
