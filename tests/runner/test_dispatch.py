"""What a dispatch asks of the registry and the store, request by request, until the agent may start."""

from __future__ import annotations

import time
from collections.abc import Iterator

import boto3
import pytest

from everturn import Run, WorkItem
from everturn.model import Holder
from everturn.testing.s3 import REGION
from runner.stage import HOUR_S, WORK, Desk, finish
from runner.wire import Wire

MOST_ROUND_TRIPS = 5
CLAIM = ["registry GetItem", "registry PutItem"]
BEGIN = ["PUT homes", "PUT sessions"]
OPENING = ["GET format.json", "PUT probes"]


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with Wire.start() as started:
        yield started


class Fleet:
    """A worker of a fleet: its store is on S3, its registry on DynamoDB."""

    def __init__(self, desk: Desk, wire: Wire, places: dict[str, str]) -> None:
        self._desk = desk
        self._wire = wire
        self._places = places
        self.runtime = desk.runtime(**places)

    def run(self, work: WorkItem = WORK, *, is_new: bool = False) -> tuple[Run, Asked]:
        """Run a work item; if its session is new, see to it that its note and its fence are on their way at once."""
        self._wire.asked.clear()
        if is_new:
            self._wire.hold_until_all_have_come(*BEGIN)
        run = self._desk.run(work, runtime=self.runtime)
        finish(run)
        return run, Asked(self._wire.asked)

    def another(self) -> Fleet:
        """Return another worker, with connections of its own."""
        return Fleet(self._desk, self._wire, self._places)

    def age(self, work: WorkItem, hours: float) -> None:
        """Have a session be used for the last time some time ago."""
        table = self._places["registry"].removeprefix("dynamodb://").partition("?")[0]
        boto3.Session().client("dynamodb", region_name=REGION).update_item(
            TableName=table,
            Key={"work": {"S": work.key}},
            UpdateExpression="SET last_used_at = :then",
            ExpressionAttributeValues={":then": {"N": str(time.time() - hours * HOUR_S)}},
        )

    def know(self, work: WorkItem) -> None:
        """Have the registry know a session of which nothing is stored."""
        claim = self.runtime.registry.claim(work, Holder("earlier"), self._places["store"], ttl_s=30)
        self.runtime.registry.confirm(claim, "/desk")
        self.runtime.registry.release(claim)


class Asked:
    """What a run asked for: to open the store, to dispatch, and from then on.

    Attributes:
        round_trips: How many requests of the dispatch had to wait for each other.
    """

    def __init__(self, asked: list[str]) -> None:
        begun = next(number for number, one in enumerate(asked) if one.startswith("registry"))
        fenced = asked.index("PUT sessions") + 1
        if "PUT homes" in asked:  # in either order
            fenced = max(fenced, asked.index("PUT homes") + 1)
            asked[fenced - 2 : fenced] = sorted(asked[fenced - 2 : fenced])
        self.opening, self.dispatch, self.rest = asked[:begun], asked[begun:fenced], asked[fenced:]
        self.round_trips = len(self.dispatch) - ("PUT homes" in asked)


@pytest.fixture
def fleet(desk: Desk, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    return Fleet(desk, wire, wire.places(monkeypatch))


@pytest.mark.slow
def test_a_new_session_takes_four_requests_and_three_round_trips(fleet: Fleet) -> None:
    run, asked = fleet.run(is_new=True)
    assert run.resumed is False
    assert asked.dispatch == [*CLAIM, *BEGIN]
    assert asked.round_trips == 3


@pytest.mark.slow
def test_a_resumed_session_takes_five_round_trips_and_its_transcript_is_read_once(fleet: Fleet) -> None:
    fleet.run()
    run, asked = fleet.another().run()
    assert run.resumed is True
    assert asked.dispatch == [*CLAIM, "GET homes", "LIST sessions", "PUT sessions"]
    assert asked.round_trips == MOST_ROUND_TRIPS
    read, subkeys = ["LIST sessions", *["GET sessions"] * 3], ["LIST sessions"]
    of_the_store = [one for one in asked.rest if not one.startswith("registry")]
    assert of_the_store[: of_the_store.index("PUT sessions")] == [*read, *subkeys]


@pytest.mark.slow
def test_a_session_that_is_too_old_takes_as_many_as_a_new_one(fleet: Fleet) -> None:
    fleet.run()
    fleet.age(WORK, hours=25)
    run, asked = fleet.another().run(is_new=True)
    assert run.resumed is False
    assert asked.dispatch == [*CLAIM, *BEGIN]
    assert asked.round_trips == 3


@pytest.mark.slow
def test_a_lost_session_costs_one_request_to_the_store_and_its_exchange(fleet: Fleet) -> None:
    fleet.know(WORK)
    run, asked = fleet.run(is_new=True)
    assert run.resumed is False
    assert asked.dispatch == [*CLAIM, "GET homes", "registry PutItem", *BEGIN]
    assert asked.round_trips == MOST_ROUND_TRIPS


@pytest.mark.slow
def test_opening_the_store_takes_two_more(fleet: Fleet) -> None:
    fleet.run()
    for worker in (fleet, fleet.another()):
        _, asked = worker.run()
        assert asked.opening == OPENING
