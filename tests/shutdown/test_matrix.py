"""Everything that ends a run, at every moment of a turn. Real workers, the real agent command, a real S3 server.

Each time: what was acknowledged is in the store, no process is left, the work item can be claimed, and the next run
resumes, or begins if nothing had been said.
"""

from __future__ import annotations

import signal
import threading
import time

import pytest

from shutdown.conftest import MakeStage
from shutdown.stage import (
    ENDING,
    GRACE_S,
    PROMPT,
    RESUME_PROMPT,
    SIGNALS,
    TTL_S,
    WORK,
    Machine,
    Stage,
    Worker,
    note,
    seconds_since,
)
from shutdown.worker import CANCELLED, FAILED

pytestmark = [pytest.mark.cli, pytest.mark.slow]

MOMENTS = ("before-the-first-frame", "streaming", "in-a-tool", "with-a-subagent", "after-the-result")
ENDS = ("sigterm", "sigint", "sigkill", "cancel", "lost-claim", "store-away", "store-gone")
MARGIN_S = 6.0  # for a machine that is busy
AWAY_S = 5.0
APPEND_S = 1.0  # for a store that is gone
# The exit code; what else it may be if the run was over by itself before the end came.
CODES = {
    "sigterm": (-signal.SIGTERM, 0),
    "sigint": (-signal.SIGINT, 0),
    "sigkill": (-signal.SIGKILL, 0),
    "cancel": (CANCELLED, 0),
    "lost-claim": (FAILED, 0),
    "store-away": (0, 0),
    "store-gone": (FAILED, 0),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_lost_nobody_is_left_and_the_next_run_goes_on(
    make_stage: MakeStage, end: str, moment: str
) -> None:
    patience_s = AWAY_S + 5 if end == "store-away" else APPEND_S
    stage = make_stage(moment, EVERTURN_APPEND_DEADLINE_S=str(patience_s))
    first = stage.machine("first")
    with first.worker(held=moment == "before-the-first-frame") as worker:
        stage.reach(worker)
        begun = time.monotonic()
        bring(end, stage, worker)
        code = worker.wait()
        took_s = seconds_since(begun)
        assert code in CODES[end][: 2 if moment == "after-the-result" else 1], worker.last_words()
        stage.assert_nobody_is_left()
    note(f"{end} {moment}: exit code {code} after {took_s:.1f} s")
    assert took_s <= GRACE_S + MARGIN_S or end == "store-gone"  # where the turn goes on, slowly, before it ends
    assert_let_go(stage, worker, end, code)

    begun_as = stage.record
    assert begun_as is not None
    second = go_on(stage, first, end)
    assert_it_went_on(stage, first, second, begun_as.session_id)
    if end not in ("sigkill", "lost-claim"):
        stage.assert_whole(second.saw("ended")[-1]["session_id"], first)


def bring(end: str, stage: Stage, worker: Worker) -> None:
    """Bring an end about. Where the agent has to go on for it, it is let go."""
    assert stage.proxy is not None
    if end in SIGNALS:
        worker.send(SIGNALS[end])
    elif end == "lost-claim":
        claim = stage.evict()
        worker.wait()
        stage.runtime.registry.release(claim)
    else:
        stage.proxy.cut()
        stage.let_go(worker)
        if end == "store-away":
            threading.Timer(AWAY_S, stage.proxy.mend).start()
            return
        worker.wait()
        stage.proxy.mend()


def assert_let_go(stage: Stage, worker: Worker, end: str, code: int) -> None:
    """The claim is free and, if the run could end in good order, all that its agent wrote is in the store."""
    record = stage.record
    assert record is not None
    if end == "sigkill":
        return
    assert record.held_until is None
    stage.assert_acknowledged_is_stored(record.session_id, worker.machine)
    if end == "lost-claim":
        if code:
            assert worker.saw("error")[-1]["kind"] == "Fenced"
        return
    if end != "store-gone":
        assert record.tainted is None
        stage.assert_whole(record.session_id, worker.machine)
    elif code:
        assert worker.saw("error")[-1]["kind"] == "Unavailable"
        assert worker.saw("ended")[-1]["missing"] > 0
        assert record.tainted is not None


def go_on(stage: Stage, first: Machine, end: str) -> Worker:
    """Run the work item again: on another machine, or where something is left to be stored."""
    stage.calm = True
    machine = first if end == "store-gone" else stage.machine("second")
    begun = time.monotonic()
    with machine.worker() as worker:
        assert worker.wait() == 0, worker.last_words()
    assert seconds_since(begun) < TTL_S + 20
    assert worker.saw("result")[-1]["ok"]
    return worker


def assert_it_went_on(stage: Stage, first: Machine, second: Worker, begun_as: str) -> None:
    said = second.saw("ended")[-1]
    acknowledged = stage.assert_acknowledged_is_stored(said["session_id"], stage.machine("second"))
    if said["resumed"]:
        acknowledged += stage.assert_acknowledged_is_stored(said["session_id"], first)
    else:  # nothing was said: what an agent had noted by then is in the session that was given up
        stage.assert_acknowledged_is_stored(begun_as, first)
    assert acknowledged > 0
    sent = "\n".join(stage.model.requests[-1].texts())
    spoke = any(entry.get("type") == "user" for each in first.acknowledged()[:1] for entry in each.get(None, []))
    if spoke:
        assert said["resumed"] is True
    if said["resumed"]:
        assert sent.index(PROMPT) < sent.index(RESUME_PROMPT)
    else:
        assert RESUME_PROMPT not in sent
    assert ENDING in str(stage.stored(said["session_id"]))
    record = stage.record
    assert record is not None
    assert (record.session_id, record.held_until, record.tainted) == (said["session_id"], None, None)
    assert record.work_key == WORK.key
    stage.assert_nobody_is_left()
