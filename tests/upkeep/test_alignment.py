"""A local transcript is laid beside the stored one: nothing is taken that does not belong there for certain."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from everturn.errors import Invalid
from everturn.upkeep.alignment import Alignment, align, between, missing_entries, without_repeats
from everturn.upkeep.local import batches
from upkeep.shelf import Shelf

QUICKLY = settings(max_examples=50, deadline=None, database=None)
Entries = list[Any]
NAMES = st.integers(1, 8).map(lambda number: {"uuid": f"u{number}"})
PLAIN = st.integers(1, 3).map(lambda number: {"type": f"t{number}"})
TRANSCRIPTS = st.lists(st.one_of(NAMES, PLAIN), max_size=14)


@QUICKLY
@given(TRANSCRIPTS, st.data())
def test_what_comes_after_the_stored_beginning_is_missing_and_no_more(local: Entries, data: st.DataObject) -> None:
    local = without_repeats(local)
    cut = data.draw(st.integers(0, len(local)))
    found = align(local, local[:cut])
    assert found == Alignment(local[cut:], [], cut, diverged=False)
    assert missing_entries(local, local) == []


@QUICKLY
@given(TRANSCRIPTS, st.data())
def test_entries_that_only_the_store_has_do_not_matter(local: Entries, data: st.DataObject) -> None:
    local = without_repeats(local)
    cut = data.draw(st.integers(0, len(local)))
    stored = local[:cut]
    for number in range(data.draw(st.integers(0, 3))):
        stored.insert(data.draw(st.integers(0, len(stored))), {"type": "title", "n": number})
    assert missing_entries(local, stored) == local[cut:]


@QUICKLY
@given(TRANSCRIPTS, st.data())
def test_what_is_put_between_two_stretches_makes_the_transcript_whole(local: Entries, data: st.DataObject) -> None:
    local = without_repeats(local)
    assume(local)
    begin = data.draw(st.integers(0, len(local)))
    end = data.draw(st.integers(begin, len(local)))
    found = between(local, local[:begin], local[end:])
    whole = local[:begin] + found + local[end:]
    assert whole + missing_entries(local, whole) == local
    assert len(whole) == len(local) or not any("uuid" in entry for entry in local[end:])


@QUICKLY
@given(TRANSCRIPTS, st.data())
def test_whatever_is_gone_a_repair_makes_the_log_equal_to_the_local_transcript(
    local: Entries, data: st.DataObject
) -> None:
    local = without_repeats(local)
    assume(local)
    parts = []
    rest = local
    while rest:
        size = data.draw(st.integers(1, 3))
        parts.append(rest[:size])
        rest = rest[size:]
    shelf = Shelf.in_memory()
    shelf.lay(*parts)
    gone = data.draw(st.sets(st.integers(1, len(parts)), max_size=len(parts) - 1))
    left = [part for seq, part in enumerate(parts, 1) if seq not in gone]
    shelf.delete(*gone)
    try:
        shelf.repair(local)
    except Invalid:
        # Where nothing that is left has a name, no gap but one at the very end is anywhere for certain.
        assert not any("uuid" in entry for entries in left for entry in entries)
        return
    assert shelf.entries() == local


@QUICKLY
@given(TRANSCRIPTS, TRANSCRIPTS, TRANSCRIPTS)
def test_nothing_is_put_between_stretches_that_the_local_transcript_does_not_have(
    local: Entries, before: Entries, after: Entries
) -> None:
    try:
        found = between(local, before, after)
    except Invalid:
        return
    whole = without_repeats(local)
    at = next(index for index in range(len(whole) + 1) if whole[index : index + len(found)] == found)
    assert whole[at : at + len(found)] == found
    names = {entry["uuid"] for entry in found if "uuid" in entry}
    assert not names & {entry.get("uuid") for entry in before + after}


@QUICKLY
@given(st.lists(st.integers(0, 400)), st.integers(50, 500))
def test_batches_hold_everything_in_order_and_are_of_the_size_that_was_asked(sizes: list[int], limit: int) -> None:
    entries = [{"text": "x" * size} for size in sizes]
    found = list(batches(entries, limit))
    assert [entry for batch in found for entry in batch] == entries
    assert all(len(batch) == 1 or sum(len(json.dumps(entry)) for entry in batch) <= limit for batch in found)


def test_a_note_that_was_added_later_does_not_hide_that_the_conversation_has_gone_on() -> None:
    mode = {"type": "mode"}
    first, elsewhere, here = ({"type": "user", "uuid": name} for name in ("u1", "u9", "u2"))
    assert align([first, mode, mode, here], [first, mode, elsewhere, mode]).diverged
    assert not align([first, mode, mode, here], [first, mode, mode]).diverged
