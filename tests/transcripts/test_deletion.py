"""Deleting a log while others claim it, write it and list it at the same time (docs/format.md, section 10)."""

from __future__ import annotations

from functools import partial

import pytest

from everturn.errors import Fenced
from everturn.log.deletion import delete_log
from everturn.log.objects import run
from everturn.testing.faults import Fault
from log.bench import FOLDER, Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


def delete(bench: Bench) -> None:
    run(delete_log(bench.objects, FOLDER, bench.writer))


def refuses_to_open(bench: Bench, epoch: int) -> bool:
    with pytest.raises(Fenced):
        run(bench.writer(epoch).open())
    return True


def test_a_late_claim_does_not_open_a_deleted_log_though_another_late_claim_had_tried_before(bench: Bench) -> None:
    run(bench.opened(4).append(["newest"]))
    assert refuses_to_open(bench, 2)  # it leaves a fence of epoch 2 behind
    delete(bench)
    assert refuses_to_open(bench, 3)
    assert bench.entries() == []


@pytest.mark.parametrize("newest_before", [0, 1, 3])
def test_a_late_claim_does_not_open_a_log_that_was_claimed_while_it_was_deleted(
    bench: Bench, newest_before: int
) -> None:
    run((bench.opened(newest_before) if newest_before else bench.writer()).append(["old"]))
    bench.after_next("listing", partial(bench.opened, 3))
    delete(bench)
    assert bench.entries() == []
    assert refuses_to_open(bench, 2)


def test_a_late_claim_does_not_open_a_deleted_log_though_the_newest_fence_was_not_listed(bench: Bench) -> None:
    run(bench.opened(3).append([]))
    for _ in range(2):
        run(bench.writer().append(["guest"]))
    bench.fault(Fault("hide", keys="*/0000000001*"))
    delete(bench)
    assert refuses_to_open(bench, 2)


def test_a_log_with_a_hole_that_stays_can_be_deleted(bench: Bench) -> None:
    for word in "abc":
        run(bench.writer().append([word]))
    bench.delete(1)
    delete(bench)
    assert bench.entries() == []
