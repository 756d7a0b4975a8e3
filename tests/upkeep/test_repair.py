"""A repair loses nothing, is never sure of what it cannot be sure of, and can be broken off anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from everturn.clock import Ids, ManualClock
from everturn.errors import Conflict, Corrupt, Denied, EverturnError, Invalid, Unavailable
from everturn.log.encryption import Key, SealedObjects
from everturn.log.format import decode
from everturn.log.names import Span, part
from everturn.log.objects import BlockingObjects, run
from everturn.log.writer import LogWriter
from everturn.testing import Fault, FaultyObjects
from everturn.transcripts.holds import lift_hold, place_hold
from everturn.transcripts.observer import StoreObserver
from everturn.upkeep.alignment import missing_entries
from everturn.upkeep.repair import Repair, append_missing
from upkeep.shelf import HOME, MODE, REF, SESSION, SUMMARY, Shelf, said

SUB = "subagents/agent-1"
KEPT = "damaged/task-1/-home-a/7df19cb2-f002-4f12-a0f4-5b4be6b08923/main"


@pytest.fixture
def shelf() -> Shelf:
    return Shelf.in_memory()


@pytest.fixture
def files(tmp_path: Path) -> Shelf:
    return Shelf.in_folder(tmp_path / "store")


PARTS: list[list[Any]] = [[said(1), MODE], [said(2)], [MODE, said(3)], [], [said(4), MODE], [said(5)]]
LOCAL: list[Any] = [entry for entries in PARTS for entry in entries]


# --- Segments -------------------------------------------------------------------------------------------------------


def test_a_damaged_segment_whose_parts_still_stand_goes_and_a_copy_is_kept(shelf: Shelf) -> None:
    shelf.lay(*PARTS)
    span = shelf.compact(2, 4, keep=True)
    spoilt = shelf.spoil(span)
    assert shelf.found() == [("damage", "damaged", 2)]
    plan = shelf.repair()
    assert (plan.gaps, plan.aside) == ((), (span,))
    assert shelf.entries() == LOCAL
    (kept,) = shelf.names(KEPT)
    assert kept.startswith(f"{span.file_name}.")
    assert shelf.get(f"{KEPT}/{kept}") == spoilt
    assert shelf.found() == []
    assert shelf.plan().is_empty


def test_a_damaged_segment_goes_if_another_one_holds_its_numbers(shelf: Shelf) -> None:
    shelf.lay(*PARTS)
    spoilt = shelf.compact(1, 3, keep=True)
    shelf.compact(2, 5, keep=True)
    shelf.delete(2, 3, 4, 5)
    shelf.spoil(spoilt)
    shelf.repair()
    assert shelf.entries() == LOCAL


def test_a_wrong_segment_goes_if_all_its_parts_stand_and_stays_if_nobody_can_tell(shelf: Shelf) -> None:
    shelf.lay([said(7)], [said(8)], [said(9)])
    span = shelf.compact(1, 3, keep=True)
    wrong = shelf.get(shelf.key(span))
    shelf.lay([said(1)], [said(2)], [said(3)])
    shelf.put(shelf.key(span), wrong)
    assert shelf.found()[0] == ("damage", "disagreement", 1)
    shelf.repair()
    assert shelf.entries() == [said(1), said(2), said(3)]
    assert shelf.found() == []
    shelf.put(shelf.key(span), wrong)
    shelf.delete(2)
    with pytest.raises(Invalid, match="only it holds number 2"):
        shelf.plan()


# --- From a local transcript ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [(1,), (2,), (3,), (5,), (2, 3), (1, 2, 3), (2, 5), (2, 4), (3, 4, 5), (1, 3, 5)])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_numbers_that_are_gone_come_back_from_a_local_transcript(
    shelf: Shelf, missing: tuple[int, ...], how: str
) -> None:
    shelf.lay(*PARTS)
    for seq in missing:
        if how == "missing":
            shelf.delete(seq)
        else:
            shelf.spoil(part(seq))
    assert shelf.verify().is_damaged
    shelf.repair(LOCAL)
    assert shelf.entries() == LOCAL
    assert [finding for finding in shelf.found() if finding[0] == "damage"] == []
    assert shelf.plan(LOCAL).is_empty
    assert shelf.plan().is_empty


def test_a_damaged_segment_comes_back_under_other_names_before_it_is_taken_away(shelf: Shelf) -> None:
    shelf.lay(*PARTS)
    span = shelf.compact(2, 5)
    shelf.spoil(span)
    shelf.repair(LOCAL)
    assert shelf.entries() == LOCAL
    assert span.file_name not in shelf.names()
    assert shelf.found() == []


def test_a_restored_segment_says_so_and_names_no_entry_twice(shelf: Shelf) -> None:
    shelf.lay(*PARTS)
    shelf.delete(2, 3)
    shelf.repair(LOCAL)
    span = Span(2, 3, segment=True)
    header = decode(shelf.get(shelf.key(span)), span).header
    assert (header.repaired, header.count, [note[2] for note in header.parts]) == ("restored", 3, [3, 0])
    assert len({note[1] for note in header.parts} | {header.write_id}) == 3
    assert ("info", "repaired", 2) in shelf.found(info=True)


def test_the_end_that_was_damaged_or_never_arrived_comes_back(shelf: Shelf) -> None:
    shelf.lay(*PARTS)
    shelf.spoil(part(6))
    shelf.repair([*LOCAL, said(6), MODE])
    assert shelf.entries() == [*LOCAL, said(6), MODE]
    plan = shelf.repair([*LOCAL, said(6), MODE, MODE, said(7)])
    assert list(plan.missing) == [MODE, said(7)]
    assert shelf.entries() == [*LOCAL, said(6), MODE, MODE, said(7)]


def test_a_sub_transcript_is_repaired_though_its_metadata_is_not_in_the_local_file(shelf: Shelf) -> None:
    metadata = {"type": "agent_metadata", "agentType": "x"}
    shelf.lay([said(1)])
    shelf.lay([metadata], [said(11, 0)], [said(12)], [said(13), metadata], subpath=SUB)
    run(shelf.objects.delete([shelf.key(part(3), SUB)]))
    shelf.repair([said(11, 0), said(12), said(13)], SUB)
    assert shelf.entries(SUB) == [metadata, said(11, 0), said(12), said(13), metadata]


def test_the_agents_notes_of_its_requests_are_in_nobodys_way(shelf: Shelf) -> None:
    shelf.lay(*PARTS)
    shelf.delete(2)
    local = [{"type": "api-request", "n": 1}]
    for number, entry in enumerate([*LOCAL, said(6)]):
        local += [entry, {"type": "api-request", "n": 1}, {"type": "api-request-blob", "n": number}]
    assert list(shelf.repair(local).missing) == [said(6)]
    assert shelf.entries() == [*LOCAL, said(6)]


def test_what_was_deleted_stays_deleted(shelf: Shelf) -> None:
    shelf.lay([said(1)], [said(2)])
    writer = writer_of(shelf)
    run(writer.truncate())
    shelf.lay([said(3, 0)], [said(4)], [said(5)], first=4)
    shelf.delete(1, 5)
    shelf.repair([said(3, 0), said(4), said(5)])
    assert shelf.entries() == [said(3, 0), said(4), said(5)]


@pytest.mark.parametrize(
    ("local", "why"),
    [
        ([said(1), MODE, said(2), said(3), said(4)], "right after the gap"),
        ([said(1), said(2), said(3), said(4), MODE, said(5)], "right before the gap"),
        ([said(1), MODE, said(2)], "u-3"),
        ([said(3), MODE, said(4)], "u-1"),
        ([MODE, said(3), said(1), MODE, said(2)], "overlap"),
        ([said(5), said(1), MODE, said(2), MODE, said(3)], "another order"),
        ([{**said(number), "sessionId": "other"} for number in range(1, 6)], "another session"),
        ([], "empty"),
    ],
)
def test_a_local_transcript_that_does_not_fit_for_certain_is_refused(
    shelf: Shelf, local: list[Any], why: str
) -> None:
    shelf.lay(*PARTS)
    shelf.delete(2)
    before = shelf.names()
    with pytest.raises(Invalid, match=why) as refusal:
        shelf.plan(local)
    assert refusal.value.hint
    assert shelf.names() == before


def test_a_local_transcript_that_ends_where_the_damaged_end_begins_is_refused(shelf: Shelf) -> None:
    shelf.lay(*PARTS)
    shelf.spoil(part(6))
    with pytest.raises(Invalid, match="it ends before number 6"):
        shelf.plan(LOCAL[:-1])


def test_the_end_of_a_local_transcript_stays_out_if_the_session_has_gone_on_without_it(shelf: Shelf) -> None:
    shelf.lay([said(1)], [said(2)], [said(3)], [said(9, 3)])
    shelf.delete(2)
    local = [said(1), said(2), said(3), said(4), said(5)]
    plan = shelf.repair(local)
    assert (plan.missing, plan.passed_over) == ((), 2)
    assert shelf.entries() == [said(1), said(2), said(3), said(9, 3)]
    assert missing_entries(local, shelf.entries()) == []
    title = {"type": "custom-title", "uuid": "t"}
    assert missing_entries(local, [*local[:3], title]) == local[3:]


def test_a_local_transcript_with_nothing_in_common_is_refused(shelf: Shelf) -> None:
    shelf.lay([said(1)], [said(2)])
    with pytest.raises(Invalid, match="nothing in common"):
        shelf.plan([said(7), said(8)])


# --- With consent to the loss ---------------------------------------------------------------------------------------


def test_numbers_accepted_as_lost_are_empty_and_everything_else_stays(shelf: Shelf) -> None:
    shelf.lay(*PARTS)
    shelf.delete(2, 3)
    spoilt = shelf.spoil(part(5))
    plan = shelf.repair()
    assert plan.loses == ["numbers 2 to 3", "number 5"]
    assert shelf.entries() == [*PARTS[0], *PARTS[5]]
    span = Span(2, 3, segment=True)
    assert decode(shelf.get(shelf.key(span)), span).header.repaired == "lost"
    assert part(5).file_name in shelf.names()  # too young: a writer may still believe that the number is free
    assert shelf.get(shelf.key(part(5))) == spoilt
    assert shelf.plan().is_empty


def test_a_damaged_part_that_is_old_enough_is_taken_away_with_a_copy(files: Shelf) -> None:
    files.lay(*PARTS)
    files.spoil(part(2))
    files.age()
    files.lay([said(6)], first=7)
    spoilt = files.get(files.key(part(2)))
    plan = files.repair(LOCAL[:])
    assert (plan.aside, plan.waiting) == ((part(2),), ())
    assert part(2).file_name not in files.names()
    assert [files.get(f"{KEPT}/{name}") for name in files.names(KEPT)] == [spoilt]
    assert files.entries() == [*LOCAL, said(6)]
    assert files.found() == []


def test_what_is_known_of_a_loss_is_told(shelf: Shelf) -> None:
    shelf.lay(*PARTS)
    shelf.spoil(part(3))
    (gap,) = shelf.plan().gaps
    assert "SHA-256" in gap.told[0]
    assert "says 2 entries" in gap.told[0]
    assert ["before" in told or "after" in told for told in gap.told] == [False, True, True]


def test_an_end_that_only_the_summary_knows_of_is_lost_by_name(shelf: Shelf) -> None:
    shelf.lay([said(1)], [said(2)])
    shelf.put(SUMMARY, json.dumps({"v": 1, "session_id": SESSION, "upto": 5, "data": {}}).encode())
    assert shelf.plan().loses == ["what came after number 2, up to 5"]
    assert shelf.plan([said(1), said(2), said(3)]).loses == []
    shelf.repair()
    assert shelf.found() == []


def test_a_home_that_is_damaged_is_written_anew_and_a_copy_is_kept(shelf: Shelf) -> None:
    shelf.lay([said(1)])
    shelf.put(HOME, b"{")
    shelf.repair()
    assert json.loads(shelf.get(HOME)) == {"v": 1, "project_key": REF.project_key}
    assert [shelf.get(f"damaged/task-1/{name}") for name in shelf.names("damaged/task-1")] == [b"{"]
    assert shelf.found() == []


class Overtaken(BlockingObjects):
    """A store in which somebody else is the first to say where the session lives."""

    home = ""

    async def create(self, key: str, data: bytes) -> bool:
        if key == HOME:
            await self.put(HOME, json.dumps({"v": 1, "project_key": self.home}).encode())
        return await super().create(key, data)


@pytest.mark.parametrize("home", [REF.project_key, "-home-b"])
def test_a_home_that_somebody_else_was_first_to_write_is_never_taken_for_ours(home: str) -> None:
    store = Overtaken(MemoryStore(), "memory://", ManualClock())
    store.home = home
    shelf = Shelf(store)
    shelf.lay([said(1)])
    shelf.put(HOME, b"{")
    if home == REF.project_key:
        shelf.repair()
    else:
        with pytest.raises(Conflict, match="somebody else says where session"):
            shelf.repair()
    assert json.loads(shelf.get(HOME))["project_key"] == home


# --- Encrypted, or on hold ------------------------------------------------------------------------------------------


def sealed(shelf: Shelf, secret: bytes | None) -> Shelf:
    """Return the same shelf, looked at with a key."""
    keys = None if secret is None else lambda _: Key("k", secret)
    return Shelf(SealedObjects(shelf.objects, keys, Ids()))


def test_an_encrypted_session_is_checked_and_repaired_with_its_key(shelf: Shelf) -> None:
    ours = sealed(shelf, b"k" * 32)
    ours.lay(*PARTS)
    span = ours.compact(2, 4, keep=True)
    spoilt = shelf.spoil(span)
    shelf.spoil(part(5))
    assert ours.found()[:2] == [("damage", "damaged", 2), ("damage", "damaged", 5)]
    ours.repair(LOCAL)
    assert ours.entries() == LOCAL
    (kept,) = shelf.names(KEPT)
    assert shelf.get(f"{KEPT}/{kept}") == spoilt  # as it was, and not encrypted once more
    assert b"words" not in b"".join(shelf.get(shelf.key(name)) for name in shelf.names())
    assert ours.plan(LOCAL).is_empty


@pytest.mark.parametrize("secret", [None, b"x" * 32], ids=["no-key", "another-key"])
def test_what_is_encrypted_with_another_key_is_no_loss_and_is_not_repaired(
    shelf: Shelf, secret: bytes | None
) -> None:
    sealed(shelf, b"k" * 32).lay(*PARTS)
    theirs = sealed(shelf, secret)
    findings = [finding for finding in theirs.verify().findings if finding.severity == "damage"]
    assert [(finding.kind, finding.number) for finding in findings] == [("locked", seq) for seq in range(1, 7)]
    assert "encryption_key_file" in findings[0].advice
    for local in (None, LOCAL):
        with pytest.raises(Denied):
            theirs.plan(local)


def test_nothing_of_a_session_on_hold_is_taken_away(shelf: Shelf) -> None:
    shelf.lay(*PARTS)
    shelf.spoil(shelf.compact(1, 3, keep=True))
    run(place_hold(shelf.objects, REF.scope, SESSION, "a lawsuit", by="Ada", now_s=0.0))
    before = shelf.names("")
    with pytest.raises(Conflict):
        shelf.repair()
    assert shelf.names("") == before
    run(lift_hold(shelf.objects, REF.scope, SESSION, by="Bob"))
    shelf.repair()
    assert shelf.entries() == LOCAL


# --- Broken off -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("local", [LOCAL, None], ids=["from", "accept-loss"])
@pytest.mark.parametrize("effect", ["fail", "lose_reply"])
def test_a_repair_that_is_broken_off_anywhere_can_be_run_again(local: list[Any] | None, effect: Any) -> None:
    for after in range(40):
        shelf = Shelf.in_memory()
        shelf.lay(*PARTS)
        shelf.spoil(shelf.compact(2, 3))
        shelf.delete(5)
        whole = shelf.objects
        shelf.objects = FaultyObjects(whole, Fault(effect, after=after, times=None))
        broken_off = False
        try:
            shelf.repair(local)
        except Unavailable:
            broken_off = True
        shelf.objects = whole
        shelf.repair(local)
        assert shelf.entries() == (LOCAL if local else [*PARTS[0], *PARTS[5]])
        assert shelf.found() == ([] if local else [("warning", "chain", 6)])
        assert len(shelf.names(KEPT)) == 1
        assert shelf.plan(local).is_empty
        if not broken_off:
            return
    raise AssertionError("the repair never came to its end")


@pytest.mark.parametrize("effect", ["fail", "lose_reply"])
def test_a_repair_of_the_end_that_is_broken_off_anywhere_can_be_run_again(effect: Any) -> None:
    for after in range(40):
        shelf = Shelf.in_memory()
        shelf.lay([said(1)], [said(2), MODE], [said(3)], [], [])
        shelf.spoil(shelf.compact(2, 3))
        shelf.spoil(part(5))
        whole = shelf.objects
        shelf.objects = FaultyObjects(whole, Fault(effect, "create", after=after, times=None))
        broken_off = False
        try:
            shelf.repair([said(1), said(2), MODE, said(3)])
        except Unavailable:
            broken_off = True
        shelf.objects = whole
        shelf.repair([said(1), said(2), MODE, said(3)])
        assert shelf.entries() == [said(1), said(2), MODE, said(3)]
        if not broken_off:
            return
    raise AssertionError("the repair never came to its end")


def test_an_object_whose_number_cannot_be_right_is_not_repaired_up_to(shelf: Shelf) -> None:
    shelf.lay([said(1)])
    shelf.put(shelf.key(part(9_999_999_999)), b"?")
    for local in (None, [said(1), said(2)]):
        with pytest.raises(Invalid, match="do not seem to belong here"):
            shelf.plan(local)


def test_a_segment_that_parts_confirm_is_kept_though_another_segment_contradicts_it(shelf: Shelf) -> None:
    shelf.lay([said(7)], [said(8)])
    wrong = shelf.get(shelf.key(shelf.compact(1, 2, keep=True)))
    shelf.lay([said(1)], [said(2)], [said(3)], [said(4)])
    shelf.compact(1, 4, keep=True)
    shelf.delete(3, 4)
    shelf.put(shelf.key(Span(1, 2, segment=True)), wrong)
    assert shelf.repair().aside == (Span(1, 2, segment=True),)
    assert shelf.entries() == [said(1), said(2), said(3), said(4)]
    assert shelf.found() == []


def test_somebody_who_writes_at_the_same_time_is_noticed_and_loses_nothing(shelf: Shelf) -> None:
    shelf.lay(*PARTS)
    shelf.delete(2)
    plan = shelf.plan(LOCAL)
    other = Span(2, 2, segment=True)
    shelf.put(shelf.key(other), b"somebody else's")
    with pytest.raises((Conflict, Corrupt)):
        run(Repair(shelf.objects, REF, None, clock=ManualClock(), ids=Ids(), writer="r").carry_out(plan))
    assert shelf.get(shelf.key(other)) == b"somebody else's"


def test_a_log_that_is_whole_is_left_as_it_is(shelf: Shelf) -> None:
    shelf.lay(*PARTS)
    before = shelf.names("")
    assert shelf.repair().is_empty
    assert shelf.repair(LOCAL).is_empty
    assert shelf.names("") == before


def writer_of(shelf: Shelf) -> LogWriter:
    return LogWriter(
        shelf.objects, REF.folder(), clock=ManualClock(), ids=Ids(1), observer=StoreObserver(), writer="w"
    )


def test_what_is_missing_is_appended_in_parts_of_a_megabyte(shelf: Shelf) -> None:
    shelf.lay([said(1)])
    missing = [said(number, text="x" * 400_000) for number in range(2, 7)]
    assert run(append_missing(writer_of(shelf), missing)) == 5
    assert shelf.entries() == [said(1), *missing]
    assert len(shelf.names()) == 4


def test_errors_of_a_repair_are_ours(shelf: Shelf) -> None:
    shelf.lay(*PARTS)
    shelf.objects = FaultyObjects(shelf.objects, Fault("fail", times=None))
    with pytest.raises(EverturnError):
        shelf.plan()
