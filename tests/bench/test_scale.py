"""The simulated fleet runs the real code, is the same each time, and its page says what it found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from bench.counting import Counts
from bench.report import as_text
from bench.scale import report
from bench.scale.__main__ import PAGE, RESULTS
from bench.scale.agent import RUN, Hour, simulate
from bench.scale.counting import Bucket, Refused, TableClient, size_of
from bench.scale.fleet import Fleet
from bench.scale.run import PROBE, SCENARIOS, SWEPT, Row, figures, row_of, sweep, total
from bench.scale.spread import spreads
from bench.scale.turns import Turns
from bench.servers import Server

from everturn.clock import Clock, Ids, ManualClock
from everturn.errors import Held
from everturn.log.objects import run
from everturn.log.stores import locate
from everturn.model import Holder, WorkItem
from everturn.registry import DynamoDbRegistry
from everturn.runner import lease
from everturn.settings import Settings
from everturn.testing import LoopbackS3
from registry.dynamo import Dynamo, DynamoPlace

BYTES = ("sent_bytes", "fetched_bytes", "kept_bytes")  # another release of a compressor may make others


@pytest.fixture(scope="module")
def committed() -> Row:
    """What docs/scale.md was written from."""
    found: Row = json.loads(RESULTS.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def probe() -> dict[str, list[Row]]:
    """A small simulation, made anew."""
    return figures(PROBE)


# --- What is committed is what the code does ---------------------------------------------------------------------


@pytest.mark.slow
def test_the_committed_figures_are_those_of_the_code(committed: Row, probe: dict[str, list[Row]]) -> None:
    for name, rows in committed["probe"].items():
        for before, now in zip(rows, json.loads(json.dumps(probe[name])), strict=True):
            assert {key: each for key, each in now.items() if key not in BYTES} == {
                key: each for key, each in before.items() if key not in BYTES
            }, f"{name} has changed: make scale"
            for key in ("sent_bytes", "fetched_bytes"):
                assert now[key] == pytest.approx(before[key], rel=0.01)
    assert committed["sweep"] == sweep(SWEPT)


def test_the_page_has_the_tables_of_the_committed_figures(committed: Row) -> None:
    text = PAGE.read_text(encoding="utf-8").split(report.BEGIN)[1].split(report.END)[0]
    assert text.strip() == f"{report.note(committed)}\n\n{as_text(report.tables(committed))}"


def test_the_plots_are_those_of_the_committed_figures(committed: Row) -> None:
    for name, text in report.plots(committed).items():
        assert (RESULTS.parent / f"scale-{name}.svg").read_text(encoding="utf-8") == text
        assert ElementTree.fromstring(text).tag.endswith("svg")


@pytest.mark.slow
def test_an_agent_asks_for_the_same_to_the_byte_whenever_it_is_simulated() -> None:
    hour = Hour(seconds=40.0)
    assert row_of(simulate(3, hour)) == row_of(simulate(3, hour))
    assert row_of(simulate(3, hour)) != row_of(simulate(4, hour))


# --- What is simulated -------------------------------------------------------------------------------------------


def test_everything_that_an_agent_appended_can_be_loaded(committed: Row, probe: dict[str, list[Row]]) -> None:
    for scenarios in (committed["scenarios"], committed["probe"], probe):
        assert set(scenarios) == set(SCENARIOS)
        assert all(row["loaded"] == row["entries"] > 0 for rows in scenarios.values() for row in rows)


def test_an_eager_append_is_one_put_and_lingering_ones_share_theirs(probe: dict[str, list[Row]]) -> None:
    (eager,), (linger,), (sparing,) = probe.values()
    subagents = 3  # each one's transcript begins with a fence
    assert eager["requests"]["transcript"]["PUT"] == eager["frames"] + subagents
    assert linger["requests"]["transcript"]["PUT"] < eager["frames"] / 2
    assert sparing["requests"]["journal"]["PUT"] < linger["requests"]["journal"]["PUT"] / 5
    assert linger["requests"]["journal"] == eager["requests"]["journal"]


def test_a_claim_beats_every_ten_seconds(probe: dict[str, list[Row]]) -> None:
    (row,) = probe["eager"]
    run_s = PROBE.hour.seconds / PROBE.hour.runs
    claimed_confirmed_released = (
        3  # confirmed again at the end, too, in the moment of the last beat: nothing to write
    )
    assert row["registry"]["PutItem"] == PROBE.hour.runs * (claimed_confirmed_released + run_s / 10)
    assert row["registry"]["GetItem"] == PROBE.hour.runs * 2


def test_compaction_merges_and_frees_while_an_agent_works(committed: Row, probe: dict[str, list[Row]]) -> None:
    assert probe["eager"][0]["requests"]["compaction"]["PUT"] > 0
    assert all(row["requests"]["compaction"]["DELETE"] > 0 for row in committed["scenarios"]["eager"])


@pytest.mark.slow
def test_a_run_that_resumes_reads_what_the_one_before_has_written() -> None:
    one, two = (simulate(0, Hour(seconds=40.0, runs=runs)).tally.requests for runs in (1, 2))
    assert two[RUN, "GET"] > one[RUN, "GET"] + 10


# --- What follows from it ----------------------------------------------------------------------------------------


def test_a_fleet_asks_for_as_much_as_its_agents_together(committed: Row) -> None:
    rows = committed["scenarios"]["eager"]
    agent = Fleet(committed).agents["eager"]
    assert agent.requests("PUT") * len(rows) == pytest.approx(sum(total(row, "PUT") for row in rows))
    assert agent.busiest("writes", 10_000) < 10 * agent.busiest("writes", 1_000)
    assert agent.busiest("writes", 10_000) > 10_000 * agent.requests("PUT", "DELETE") / 3600


@pytest.mark.slow
def test_counting_ids_all_fall_behind_the_ranges_that_s3_has_made() -> None:
    found = {each.name: each for each in spreads(2_000, 10)}
    assert found["counting ids"].busiest_next == 1.0
    assert found["random ids"].busiest_next < 0.2
    assert all(each.busiest_now == pytest.approx(0.1) for each in found.values())


# --- What counts -------------------------------------------------------------------------------------------------


def test_requests_are_counted_as_s3_does() -> None:
    bucket = Bucket(ManualClock(), lambda key: key.split("/")[0])
    assert run(bucket.create("a/1", b"12"))
    assert not run(bucket.create("a/1", b"34"))
    run(bucket.put("b/1", b"5"))
    run(bucket.get_many(["a/1", "a/2"]))
    run(bucket.listing("a"))
    run(bucket.delete(["a/1", "a/2"]))
    assert bucket.tally.requests == {
        ("a", "PUT"): 2,
        ("b", "PUT"): 1,
        ("a", "GET"): 2,
        ("a", "LIST"): 1,
        ("a", "DELETE"): 2,
    }
    assert (bucket.tally.sent["a"], bucket.tally.fetched["a"]) == (4, 2)
    assert bucket.kept_bytes == Counter(b=1)


@pytest.mark.slow
def test_a_server_counts_the_same_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    with LoopbackS3.start(wrap=Counts().wsgi) as loopback:
        for name, value in loopback.environment.items():
            monkeypatch.setenv(name, value)
        server = Server(loopback.url)
        server.make_bucket("agents")
        server.take_counts()
        asked = simulate(0, Hour(seconds=80.0), locate("s3://agents/everturn", Settings.load()))
        arrived = server.take_counts()
    counted = Counter[str]()
    for tally in (asked.tally, asked.read):
        for (_, kind), count in tally.requests.items():
            counted[kind] += count
    assert {kind: arrived[kind] for kind in ("PUT", "GET", "LIST")} == {
        kind: counted[kind] for kind in ("PUT", "GET", "LIST")
    }
    assert counted["PUT"] > 50
    assert arrived["bytes_in"] == pytest.approx(asked.tally.sent.total(), rel=0.01)


def test_objects_are_as_old_as_the_clock_says() -> None:
    clock = ManualClock(1000.0)
    bucket = Bucket(clock, lambda _: "")
    run(bucket.create("a/1", b""))
    clock.advance(5)
    (item,) = run(bucket.listing("a"))
    stored = run(bucket.get("a/1"))
    assert stored is not None
    assert item.modified_ms == stored.modified_ms == 1_000_000


def test_items_are_as_large_as_dynamodb_says() -> None:
    assert size_of({"work": {"S": "task:1"}}) == 10
    assert size_of({"épo": {"S": "é"}}) == 6
    assert size_of({"n": {"N": "27"}}) == 3
    assert size_of({"n": {"N": "-12.5"}}) == 4
    assert size_of({"yes": {"BOOL": True}}) == 4


def test_a_write_is_a_unit_for_each_kilobyte_of_the_larger_item_and_refused_ones_cost_as_much() -> None:
    client = TableClient(ManualClock())
    large = {"work": {"S": "a"}, "write_id": {"S": "1"}, "more": {"S": "x" * 1500}}
    small = {"work": {"S": "a"}, "write_id": {"S": "2"}}
    client.put_item(Item=large)
    client.put_item(Item=small, ExpressionAttributeValues={":seen": {"S": "1"}})
    with pytest.raises(Refused):
        client.put_item(Item=large, ExpressionAttributeValues={":seen": {"S": "1"}})
    client.get_item(Key={"work": {"S": "a"}})
    assert client.units == {"write": 6, "read": 1}


@pytest.mark.slow
def test_the_table_in_memory_holds_what_a_server_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    with Dynamo.start() as dynamo:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "loopback")
        place = DynamoPlace(dynamo)
        on_server = _use(
            lambda ids, clock: DynamoDbRegistry(place.table, client=dynamo.client, clock=clock, ids=ids), place.clock
        )
        items = dynamo.client.scan(TableName=place.table)["Items"]
    clock = ManualClock(place.clock.now() - 20)
    client = TableClient(clock)
    in_memory = _use(lambda ids, clock: DynamoDbRegistry("t", client=client, clock=clock, ids=ids), clock)
    assert in_memory == on_server
    by_key: Callable[[dict[str, Any]], str] = lambda item: item["work"]["S"]  # noqa: E731
    assert sorted(client.table.values(), key=by_key) == sorted(items, key=by_key)


def _use(connect: Callable[[Ids, Clock], DynamoDbRegistry], clock: ManualClock) -> list[Any]:
    """Do what runs do, and return what came of it."""
    one, other = (connect(Ids(seed), clock) for seed in (1, 2))
    work, gone = WorkItem.task("1"), WorkItem.task("2")
    claim = one.claim(work, Holder("w1", "r1"), "s3://b", ttl_s=30)
    one.confirm(claim, "/work")
    clock.advance(10)
    claim = one.renew(claim, 30)
    with pytest.raises(Held) as held:
        other.claim(work, Holder("w2", "r2"), "s3://b", ttl_s=30)
    one.release(claim)
    clock.advance(10)
    again = other.claim(work, Holder("w2", "r2"), "s3://b", ttl_s=30)
    dropped = one.claim(gone, Holder("w1", "r3"), "s3://b", ttl_s=30)
    other.drop(gone, dropped.session_id, "test")
    return [held.value.epoch, again.epoch, again.session_id, len(one.records())]


# --- Whose turn it is --------------------------------------------------------------------------------------------


def test_threads_wait_by_the_clock_and_take_turns_in_the_order_in_which_they_are_due() -> None:
    clock = ManualClock(0.0)
    turns = Turns(clock)
    done: list[tuple[float, str]] = []

    def every(seconds: float, name: str) -> Callable[[], None]:
        def work() -> None:
            with turns.taken():
                over = lease.threading.Event()
            for _ in range(2):
                over.wait(seconds)
                done.append((clock.now(), name))

        return work

    turns.start(every(3.0, "slow"), "slow")
    turns.start(every(2.0, "quick"), "quick").join()
    assert done == [(2.0, "quick"), (3.0, "slow"), (4.0, "quick")]
    assert turns.running == ["slow"]
    turns.go_on(10.0)
    assert done[-1] == (6.0, "slow")
    assert (clock.now(), turns.running) == (10.0, [])


def test_what_a_thread_raises_is_raised_where_time_goes_on() -> None:
    turns = Turns(ManualClock())

    def fail() -> None:
        raise ValueError("no")

    turns.start(fail, "failing")
    with pytest.raises(ValueError, match="no"):
        turns.go_on(until_s=turns._clock.elapsed())


def test_waiting_for_what_never_comes_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="everybody waits"):
        Turns(ManualClock()).go_on(is_over=lambda: False)


def test_the_tables_go_into_a_page(committed: Row, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{report.BEGIN}\nformer\n{report.END}\nbelow\n", encoding="utf-8")
    report.write(committed, page, tmp_path)
    assert "former" not in page.read_text(encoding="utf-8")
    assert len(list(tmp_path.glob("scale-*.svg"))) == 2
