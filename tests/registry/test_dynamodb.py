"""What is particular to the registry on DynamoDB: one write at a time, lost answers, the server's clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from everturn.clock import ManualClock
from everturn.errors import Corrupt, Fenced, Held, Invalid, Unavailable
from everturn.model import Claim, SessionAges, WorkItem
from everturn.registry import DynamoDbRegistry, Registry
from registry.dynamo import ACTS, BROKEN, SLOW, THROTTLED, Dynamo, DynamoPlace, Trouble, asked, hang_up, lose_answer
from registry.places import DAY_S, HOUR_S, START_S, TTL_S, WORK, claim, used

WEEK_S = 7 * DAY_S
WRITES = ("PutItem", "DeleteItem")


@pytest.fixture
def place(dynamodb_place: DynamoPlace) -> DynamoPlace:
    return dynamodb_place


def item(place: DynamoPlace, work: WorkItem = WORK) -> dict[str, Any]:
    found: dict[str, Any] = place.dynamo.client.get_item(TableName=place.table, Key={"work": {"S": work.key}})["Item"]
    return found


# --- How much is asked of it ----------------------------------------------------------------------------------------


def test_a_claim_is_two_requests_and_what_its_holder_does_is_one_each(
    registry: DynamoDbRegistry, place: DynamoPlace
) -> None:
    made = claim(registry)
    assert asked(place) == ["GetItem", "PutItem"]
    made = registry.renew(made, TTL_S)
    registry.confirm(made, "/desk")
    registry.taint(made, "3 entries are missing")
    made = registry.begin_anew(made)
    registry.release(made)
    assert asked(place) == ["PutItem"] * 5
    claim(registry, "w2")
    assert asked(place) == ["GetItem", "PutItem"]


def test_a_refused_claim_is_one_request(registry: DynamoDbRegistry, place: DynamoPlace) -> None:
    claim(registry)
    asked(place)
    with pytest.raises(Held):
        claim(place.connect(), "w2")
    assert asked(place) == ["GetItem"]


def test_a_look_in_between_does_not_make_the_next_renewal_dearer(
    registry: DynamoDbRegistry, place: DynamoPlace
) -> None:
    made = claim(registry)
    asked(place)
    registry.get(WORK)
    registry.renew(made, TTL_S)
    assert asked(place) == ["GetItem", "PutItem"]


def test_a_claim_can_be_renewed_by_another_process_that_was_given_it(place: DynamoPlace) -> None:
    made = claim(place.connect())
    asked(place)
    place.connect().renew(made, TTL_S)
    assert asked(place) == ["GetItem", "PutItem"]


def test_a_table_of_several_pages_is_read_to_its_end(registry: DynamoDbRegistry) -> None:
    large = "x" * 100_000
    for number in range(14):  # a page holds a megabyte
        made = claim(registry, work=WorkItem.task(f"{number:02}"))
        registry.taint(made, large)
    assert [record.work_key for record in registry.records()] == [f"task:{number:02}" for number in range(14)]
    assert registry.find(made.session_id) is not None


# --- Answers that are lost ------------------------------------------------------------------------------------------

TROUBLES = [
    pytest.param([lose_answer], id="lost answer"),
    pytest.param([lose_answer, lose_answer], id="two lost answers", marks=SLOW),
    pytest.param([hang_up], id="lost request", marks=SLOW),
    pytest.param([THROTTLED, THROTTLED], id="throttled"),
    pytest.param([BROKEN], id="broken", marks=SLOW),
    pytest.param([lose_answer, BROKEN], id="lost answer, then broken", marks=SLOW),
]


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS.keys())
def test_what_is_lost_on_the_way_is_done_once(
    registry: DynamoDbRegistry, place: DynamoPlace, act: Callable[[Registry, Claim], object], trouble: list[Trouble]
) -> None:
    made = claim(registry)
    expected = outcome(place, act)
    for operation in WRITES:
        place.dynamo.on[operation] = list(trouble)
    act(registry, made)
    assert outcome_of(place) == expected


def outcome(place: DynamoPlace, act: Callable[[Registry, Claim], object]) -> list[tuple[object, ...]]:
    """What an act leaves behind in a table of its own, where nothing is lost."""
    calm = DynamoPlace(place.dynamo, place.clock)
    registry = calm.connect()
    act(registry, claim(registry))
    return outcome_of(calm)


def outcome_of(place: DynamoPlace) -> list[tuple[object, ...]]:
    return [
        (record.work_key, record.epoch, record.worker, record.cwd, record.tainted, record.held_until is None)
        for record in place.connect().records()
    ]


def test_a_drop_whose_answer_was_lost_says_that_the_session_was_there(
    registry: DynamoDbRegistry, place: DynamoPlace
) -> None:
    made = claim(registry)
    place.dynamo.on["DeleteItem"] = [lose_answer]
    assert registry.drop(WORK, made.session_id, "gone") is True


def test_a_claim_whose_answers_were_all_lost_is_had_by_asking_again(
    registry: DynamoDbRegistry, place: DynamoPlace
) -> None:
    place.dynamo.on["PutItem"] = [lose_answer] + [hang_up] * 1000
    with pytest.raises(Unavailable):
        claim(registry)
    place.dynamo.on.clear()
    with pytest.raises(Held):
        claim(place.connect(), "w2")
    made = claim(registry)
    assert (made.epoch, made.took_over) == (2, False)
    registry.renew(made, TTL_S)


class Interrupted(ManualClock):
    """A clock whose first sleep is used by somebody else."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__(START_S)
        self._meanwhile = iter([meanwhile])

    def sleep(self, seconds: float) -> None:
        for act in self._meanwhile:
            act()
        super().sleep(seconds)


def test_a_claim_that_was_lost_and_dropped_meanwhile_is_made_again(place: DynamoPlace) -> None:
    def forget() -> None:
        record = place.connect().get(WORK)
        assert record is not None
        place.connect().drop(WORK, record.session_id, "gone")

    place.dynamo.on["PutItem"] = [lose_answer]
    made = claim(place.connect(clock=Interrupted(forget)))
    assert made.is_new
    place.connect().renew(made, TTL_S)


def test_a_renewal_that_was_lost_and_overtaken_is_fenced(place: DynamoPlace) -> None:
    def take_over() -> None:
        with pytest.raises(Held) as caught:
            claim(place.connect(), "w2")
        claim(place.connect(), "w2", instead_of=caught.value)

    registry = place.connect(clock=Interrupted(take_over))
    made = claim(registry)
    place.dynamo.on["PutItem"] = [lose_answer]
    with pytest.raises(Fenced, match="claimed again, by w2"):
        registry.renew(made, TTL_S)


@pytest.fixture
def before_write(dynamo: Dynamo) -> Iterator[list[Callable[[], object]]]:
    """What is done between a worker's decision and its write, once each."""
    acts: list[Callable[[], object]] = []

    def act(**_: Any) -> None:
        if acts:
            acts.pop(0)()

    for operation in WRITES:
        dynamo.client.meta.events.register(f"before-call.dynamodb.{operation}", act)
    yield acts
    for operation in WRITES:
        dynamo.client.meta.events.unregister(f"before-call.dynamodb.{operation}", act)


def test_of_two_workers_that_saw_the_same_the_second_sees_the_first(
    place: DynamoPlace, before_write: list[Callable[[], object]]
) -> None:
    before_write.append(lambda: claim(place.connect(), "w2"))
    asked(place)
    with pytest.raises(Held, match="held by w2"):
        claim(place.connect())
    assert asked(place) == ["GetItem", "GetItem", "PutItem", "PutItem"]  # the refused write tells what is there


def test_a_stale_session_that_is_claimed_just_now_is_not_dropped(
    place: DynamoPlace, before_write: list[Callable[[], object]]
) -> None:
    registry = place.connect()
    old = used(registry)
    place.clock.advance(25 * HOUR_S)
    lenient = place.connect(SessionAges(None))
    before_write.append(lambda: claim(lenient, "w2"))
    assert registry.sweep() == []
    record = registry.get(WORK)
    assert record is not None
    assert (record.session_id, record.worker) == (old.session_id, "w2")


@pytest.mark.slow
def test_a_worker_that_is_overtaken_at_each_try_gives_up(
    place: DynamoPlace, before_write: list[Callable[[], object]]
) -> None:
    rival = place.connect()
    numbers = count()

    def disturb() -> None:
        used(rival, name=f"rival-{next(numbers)}")

    for _ in range(200):
        before_write += [disturb, *[lambda: None] * 3]  # three writes of the rival's own
    with pytest.raises(Unavailable, match="too many workers"):
        claim(place.connect())


# --- The server's clock ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off_s", [DAY_S, -DAY_S, 3650 * DAY_S])
def test_the_clocks_of_workers_do_not_matter(place: DynamoPlace, off_s: float) -> None:
    """Neither the time of day they show, nor how long their machines have been running."""
    made = claim(place.connect())
    wrong = ManualClock(START_S + off_s)
    stranger = place.connect(clock=wrong)
    with pytest.raises(Held) as caught:
        claim(stranger, "w2")
    assert caught.value.until == pytest.approx(START_S + TTL_S, abs=2)
    for clock in (place.clock, wrong):
        clock.advance(TTL_S + 3)
    taken = claim(stranger, "w2")
    assert (taken.session_id, taken.epoch) == (made.session_id, 2)


@pytest.mark.parametrize("fraction_s", [0.0, 0.001, 0.5, 0.999])
@pytest.mark.parametrize("slow_s", [0.0, 3.7])
def test_no_claim_ends_earlier_than_its_holder_thinks(place: DynamoPlace, fraction_s: float, slow_s: float) -> None:
    """The server tells whole seconds, and answers may take their time."""
    place.clock.advance(fraction_s)
    holders = place.connect()
    holders.get(WORK)
    place.clock.advance(0.7)
    asked_at = place.clock.elapsed()
    made = claim(holders)
    place.clock.advance(slow_s)
    made = holders.renew(made, TTL_S)
    asked_at += slow_s
    place.clock.advance(TTL_S + asked_at - place.clock.elapsed() - 0.001)
    with pytest.raises(Held):
        claim(place.connect(), "w2")
    place.clock.advance(2.1)
    assert claim(place.connect(), "w2").took_over


def test_a_server_that_tells_no_time_leaves_it_to_the_workers(place: DynamoPlace, dynamo: Dynamo) -> None:
    def forget(parsed: dict[str, Any], **_: Any) -> None:
        parsed["ResponseMetadata"]["HTTPHeaders"].pop("date", None)

    dynamo.client.meta.events.register_last("after-call.dynamodb", forget)
    try:
        made = claim(place.connect())
        assert made.until == place.clock.now() + TTL_S
        with pytest.raises(Held):
            claim(place.connect(), "w2")
        place.clock.advance(TTL_S + 1)
        assert claim(place.connect(), "w2").epoch == 2
    finally:
        dynamo.client.meta.events.unregister("after-call.dynamodb", forget)


def test_the_time_is_read_from_the_answers_of_a_real_server(place: DynamoPlace, dynamo: Dynamo) -> None:
    dynamo.time = None
    made = claim(place.connect())  # whose own clock has stood still for years
    assert made.until == pytest.approx(time.time() + TTL_S, abs=10)


# --- Items ----------------------------------------------------------------------------------------------------------


def expiry(place: DynamoPlace, work: WorkItem = WORK) -> float | None:
    found = item(place, work).get("expires_at")
    return None if found is None else int(found["N"])


def test_an_item_expires_a_week_after_its_session_gets_stale(registry: DynamoDbRegistry, place: DynamoPlace) -> None:
    made = claim(registry)
    assert expiry(place) == pytest.approx(START_S + DAY_S + WEEK_S, abs=3)
    place.clock.advance(HOUR_S)
    registry.confirm(registry.renew(made, TTL_S), "/desk")
    assert expiry(place) == pytest.approx(START_S + HOUR_S + DAY_S + WEEK_S, abs=3)


def test_an_item_never_expires_before_its_claim_does(registry: DynamoDbRegistry, place: DynamoPlace) -> None:
    registry.renew(claim(registry), 30 * DAY_S)
    assert expiry(place) == pytest.approx(START_S + 30 * DAY_S + WEEK_S, abs=3)


def test_an_item_without_a_limit_never_expires(place: DynamoPlace) -> None:
    claim(place.connect(SessionAges(None)))
    assert expiry(place) is None
    reviewer = WorkItem("reviewer", "/r", 1)
    claim(place.connect(), work=reviewer)
    assert expiry(place, reviewer) is None


def test_an_item_that_has_expired_and_is_still_there_is_judged_by_its_age(
    registry: DynamoDbRegistry, place: DynamoPlace
) -> None:
    old = used(registry)
    place.clock.advance(30 * DAY_S)
    fresh = claim(registry)
    assert fresh.stale is not None
    assert fresh.stale.session_id == old.session_id


def test_a_table_of_ours_lets_dynamodb_delete_what_has_expired(place: DynamoPlace, dynamo: Dynamo) -> None:
    told = dynamo.client.describe_time_to_live(TableName=place.table)["TimeToLiveDescription"]
    assert (told["TimeToLiveStatus"], told["AttributeName"]) == ("ENABLED", "expires_at")


@pytest.mark.parametrize(
    "damage",
    [
        {"epoch": {"S": "many"}},
        {"epoch": None},
        {"token": None},
        {"last_used_at": {"S": "yesterday"}},
        {"version": None},
    ],
    ids=str,
)
def test_an_item_that_is_not_as_it_was_written_is_corrupt_and_left_alone(
    registry: DynamoDbRegistry, place: DynamoPlace, damage: dict[str, Any]
) -> None:
    claim(registry)
    damaged = {name: value for name, value in {**item(place), **damage}.items() if value is not None}
    place.dynamo.client.put_item(TableName=place.table, Item=damaged)
    for act in (claim, lambda registry: registry.get(WORK), lambda registry: registry.records()):
        with pytest.raises(Corrupt, match=WORK.key):
            act(place.connect())
    assert item(place) == damaged


def test_an_item_of_a_newer_release_is_left_alone(registry: DynamoDbRegistry, place: DynamoPlace) -> None:
    claim(registry)
    newer = {**item(place), "version": {"N": "2"}}
    place.dynamo.client.put_item(TableName=place.table, Item=newer)
    with pytest.raises(Invalid, match="newer release"):
        claim(place.connect(), "w2")
    assert item(place) == newer
