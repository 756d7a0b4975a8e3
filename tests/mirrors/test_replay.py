"""Whatever the events and however they are cut: a rebuild gives the mirror that live folding gave, row for row."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everturn.journal.events import TYPES
from everturn.journal.reading import RunRef
from everturn.mirrors.base import Batch
from everturn.mirrors.keeping import catch_up, rebuild
from everturn.mirrors.sqlite import SqliteMirror
from mirrors.ground import REF, Ground, Line, a_run, check_index, dump, lines_of_events, matches

OTHER = RunRef("task:other", "run-2")
WORDS = ("alpha", "beta", "gamma")

texts = st.one_of(
    st.sampled_from(["alpha", "beta gamma", "", "x " * 9, "\ud800 alpha", "é\x00"]), st.text(max_size=4)
)
ids = st.sampled_from(["a", "b", None])
numbers = st.sampled_from([0, 1, 2, 7, -1, 1 << 60])
usages = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {}, optional={"input_tokens": numbers, "output_tokens": numbers, "cache_read_input_tokens": st.just("?")}
    ),
)
models = st.one_of(
    st.none(),
    st.just({}),
    st.fixed_dictionaries({"m": st.fixed_dictionaries({"inputTokens": numbers, "costUSD": numbers})}),
)
junk = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts, st.floats(allow_nan=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(texts, inner, max_size=2)),
    max_leaves=4,
)
USUAL: dict[str, Any] = {
    "text": texts,
    "message_id": ids,
    "parent": ids,
    "index": st.sampled_from([0, 1]),
    "model": st.sampled_from(["m", "n", None]),
    "usage": usages,
    "call_id": st.sampled_from(["c1", "c2"]),
    "name": st.sampled_from(["Read", "Edit", "Bash"]),
    "input": st.one_of(st.fixed_dictionaries({"file_path": texts}), junk),
    "content": st.one_of(texts, junk, st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": texts}))),
    "is_error": st.booleans(),
    "resumed": st.booleans(),
    "took_over": st.booleans(),
    "session_id": st.sampled_from(["s1", "s2"]),
    "outcome": st.sampled_from(["completed", "failed"]),
    "subtype": st.just("success"),
    "cost_usd": st.sampled_from([0.1, 0.25, None, 1 << 60]),
    "model_usage": models,
    "model_turns": st.sampled_from([1, 2]),
    "duration_ms": st.sampled_from([10, 20]),
    "reason": st.just("SIGTERM"),
    "status": st.just("rejected"),
    "error": st.one_of(st.none(), texts),
    "epoch": st.sampled_from([1, 2]),
    "cwd": st.just("/desk"),
}
FREQUENT = (
    "text_delta",
    "thinking_delta",
    "tool_input_delta",
    "assistant",
    "tool_use",
    "tool_result",
    "prompt",
    "result",
)
bodies = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(FREQUENT), **USUAL}),
    st.fixed_dictionaries({"type": st.sampled_from(sorted(TYPES)), **USUAL}),
    st.fixed_dictionaries(
        {"type": st.sampled_from([*sorted(TYPES), "hologram"])},
        optional={name: st.one_of(usual, junk) for name, usual in USUAL.items()},
    ),
)
lines_of_a_run = st.lists(st.tuples(bodies, st.sampled_from([1, 1, 1, 1, 2])), max_size=30).map(
    lambda found: [{"v": v, "seq": seq, "at_ms": 1000 * seq, **body} for seq, (body, v) in enumerate(found, 1)]
)


def cut(data: st.DataObject, lines: list[Any]) -> list[list[Any]]:
    """Cut lines into batches."""
    places = data.draw(st.lists(st.integers(0, len(lines)), max_size=4).map(sorted))
    return [lines[start:end] for start, end in zip([0, *places], [*places, len(lines)], strict=True)]


def rebuilt(ground: Ground, name: str) -> SqliteMirror:
    mirror = ground.mirror(name)
    rebuild(ground.journals, mirror, metrics=ground.metrics)
    return mirror


def assert_same(one: SqliteMirror, other: SqliteMirror) -> None:
    assert dump(one) == dump(other)
    for word in (*WORDS, "alpha OR gamma", '"beta gamma"', "bet*"):
        assert matches(one, word) == matches(other, word)
    check_index(one)
    check_index(other)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.data(), lines_of_a_run, lines_of_a_run)
def test_live_folding_gives_what_a_rebuild_gives(data: st.DataObject, first: list[Line], second: list[Line]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(Path(folder))
        live = ground.mirror("live")
        rebuild(ground.journals, live, metrics=ground.metrics)
        todo = {ref: cut(data, lines) for ref, lines in ((REF, first), (OTHER, second))}
        while any(todo.values()):  # the runs by turns, from this machine's files or from the store
            ref = data.draw(st.sampled_from([ref for ref, batches in todo.items() if batches]))
            batch = todo[ref].pop(0)
            ground.store_part(ref, batch)
            if data.draw(st.booleans()):
                told = [line for line in (first if ref == REF else second) if line["seq"] <= last_of(batch)]
                assert live.fold(Batch(ref, told))
            if data.draw(st.booleans()):
                catch_up(ground.journals, live, metrics=ground.metrics)
        catch_up(ground.journals, live, metrics=ground.metrics)
        assert_same(live, rebuilt(ground, "again"))
        live.close()


def last_of(batch: list[Line]) -> int:
    return batch[-1]["seq"] if batch else 0


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.data(), lines_of_a_run)
def test_parts_that_are_doubled_missing_or_out_of_order_change_nothing_of_that(
    data: st.DataObject, lines: list[Line]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(Path(folder))
        live = ground.mirror("live")
        batches = data.draw(st.permutations([*cut(data, lines), [5, {"seq": 1}, None]]))
        for batch in [*batches, *data.draw(st.lists(st.sampled_from(batches), max_size=2))]:
            ground.store_part(REF, batch)
            if data.draw(st.booleans()):
                catch_up(ground.journals, live, metrics=ground.metrics)
        catch_up(ground.journals, live, metrics=ground.metrics)
        assert_same(live, rebuilt(ground, "again"))
        live.close()


def test_deleting_a_mirror_changes_no_answer(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    for number in range(5):
        ref = RunRef(f"task:{number % 2}", f"run-{number}")
        ground.store(
            ref, lines_of_events(a_run(ref.run_id, ref.scope, epoch=number, words=WORDS[number % 3])), parts=3
        )
    mirror = ground.mirror()
    catch_up(ground.journals, mirror, metrics=ground.metrics)
    before, found = dump(mirror), matches(mirror, "alpha")
    shutil.rmtree(mirror.path.parent)  # as anybody may
    catch_up(ground.journals, mirror, metrics=ground.metrics)
    assert dump(mirror) == before
    assert matches(mirror, "alpha") == found
    assert len(found) > 3


def test_a_wrong_row_is_gone_after_a_rebuild(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    ground.store(REF, lines_of_events(a_run()))
    mirror = ground.mirror()
    catch_up(ground.journals, mirror, metrics=ground.metrics)
    before = dump(mirror)
    with mirror._writing() as connection:
        connection.execute("UPDATE runs SET agent = 'somebody else', cost_usd = 0")
        connection.execute("DELETE FROM texts WHERE kind = 'prompt'")
        connection.execute("INSERT INTO errors VALUES ('run-1', 99, 1, NULL, 'tool', NULL, 'never happened')")
    assert dump(mirror) != before
    rebuild(ground.journals, mirror, metrics=ground.metrics)
    assert dump(mirror) == before
    check_index(mirror)
    assert ground.counted("mirror_rebuilds", reason="asked") == 1
