"""A check of a session looks at its logs, and at chains, sizes and the notes beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from everturn import Settings
from everturn.errors import Unavailable
from everturn.log.names import part
from everturn.log.objects import run
from everturn.log.reader import read
from everturn.log.stores import connect
from everturn.testing import Fault, FaultyObjects
from everturn.transcripts.archive import Archive, SessionRef
from everturn.transcripts.sizes import size_warnings
from everturn.transcripts.summaries import encode_summary, fold_log
from everturn.upkeep.verification import all_scopes, all_sessions, verify_sessions
from upkeep.shelf import HOME, LAYOUT, MODE, REF, SESSION, SUMMARY, Shelf, said

GOLDEN = Path(__file__).parents[1] / "golden" / "v1"
SUB = "subagents/agent-1"


@pytest.fixture
def shelf() -> Shelf:
    return Shelf.in_memory()


def summarize(shelf: Shelf, upto: int | None = None, **wrong: Any) -> None:
    """Write the session's summary, right but for what is given."""
    log = run(read(shelf.objects, REF.folder()))
    summary = fold_log((REF.project_key, SESSION), log)
    assert summary is not None
    summary["data"] |= wrong
    shelf.put(SUMMARY, encode_summary(summary, log.tail if upto is None else upto))


def test_a_whole_session_with_its_notes_has_no_findings(shelf: Shelf) -> None:
    shelf.lay([said(1), MODE], [said(2)])
    shelf.lay([said(11, 0)], subpath=SUB)
    shelf.put(HOME, json.dumps({"v": 1, "project_key": REF.project_key}).encode())
    summarize(shelf)
    report = shelf.verify()
    assert report.findings == ()
    assert (report.exists, report.is_damaged, report.entries) == (True, False, 4)


def test_damage_of_a_sub_transcript_is_the_sessions_and_says_how_to_name_it(shelf: Shelf) -> None:
    shelf.lay([said(1)])
    shelf.lay([said(11, 0)], [said(12)], subpath=SUB)
    run(shelf.objects.delete([shelf.key(part(1), SUB)]))
    report = shelf.verify()
    (hole, chain) = [finding for finding in report.findings if finding.severity != "info"]
    assert report.is_damaged
    assert (hole.kind, hole.key) == ("hole", REF.folder(SUB))
    assert f"--subpath {SUB}" in hole.advice
    assert chain.kind == "chain"


# --- Chains ---------------------------------------------------------------------------------------------------------


def test_an_entry_that_follows_one_that_is_nowhere_is_named(shelf: Shelf) -> None:
    shelf.lay([said(1)], [said(3)], [said(4), said(5, 2)])
    findings = [finding for finding in shelf.verify().findings if finding.kind == "chain"]
    assert [(finding.number, finding.severity) for finding in findings] == [(2, "warning")]
    assert "u-3 follows u-2" in findings[0].message


def test_what_the_agent_command_writes_by_itself_is_no_broken_chain(shelf: Shelf) -> None:
    boundary = {"type": "system", "subtype": "compact_boundary", "uuid": "b", "parentUuid": None}
    shelf.lay(
        [said(1), MODE, {**said(2), "parentUuid": "u-1"}],
        [said(3, 2), said(4, 2), said(5, 1)],  # parallel tools, and a fork
        [{**boundary, "logicalParentUuid": "gone-with-a-fork"}, {**said(6), "parentUuid": "b"}],
        [said(8, 9), said(9, 6)],  # batches that came in another order
        [{**said(10), "parentUuid": None, "isSidechain": True}],
    )
    shelf.lay([said(20, 6, isSidechain=True)], subpath=SUB)  # goes on from the main conversation
    assert shelf.found() == []


# --- Sizes ----------------------------------------------------------------------------------------------------------


def test_an_entry_that_the_agent_command_chokes_on_is_warned_of(shelf: Shelf) -> None:
    shelf.lay([said(1), said(2, text="x" * 10_000_001)])
    (warning,) = size_warnings(run(read(shelf.objects, REF.folder())))
    assert "entry 2 has 10.0 MB" in warning
    assert shelf.found() == [("warning", "oversized", None)]


@pytest.mark.slow
def test_a_transcript_that_the_agent_command_chokes_on_is_warned_of(shelf: Shelf) -> None:
    shelf.lay(*([said(number, text="y" * 9_900_000)] for number in range(1, 7)))
    (warning,) = size_warnings(run(read(shelf.objects, REF.folder())))
    assert "the transcript has 59.4 MB" in warning
    assert shelf.found() == [("warning", "oversized", None)]


def test_ordinary_transcripts_are_not_warned_of(shelf: Shelf) -> None:
    shelf.lay(*([said(number, text="y" * 2_600_000)] for number in range(1, 6)))
    assert size_warnings(run(read(shelf.objects, REF.folder()))) == []


# --- Notes beside the logs ------------------------------------------------------------------------------------------


def test_a_summary_that_knows_more_than_the_log_has_gives_a_lost_end_away(shelf: Shelf) -> None:
    shelf.lay([said(1)], [said(2)], [said(3)])
    summarize(shelf)
    shelf.delete(3)
    assert shelf.found() == [("damage", "tail", 3)]


@pytest.mark.parametrize(
    ("stored", "severity"),
    [
        (None, "info"),
        (b"half a summ", "warning"),
        (b'{"v":1,"session_id":"s","upto":"2","data":{}}', "warning"),
        (b"[]", "warning"),
    ],
)
def test_a_summary_that_is_absent_or_damaged_is_told(shelf: Shelf, stored: bytes | None, severity: str) -> None:
    shelf.lay([said(1)], [said(2)])
    if stored is not None:
        shelf.put(SUMMARY, stored)
    assert (severity, "summary", None) in shelf.found(info=True)


def test_a_summary_that_is_behind_or_was_made_otherwise_is_information(shelf: Shelf) -> None:
    shelf.lay([said(1)], [said(2)])
    summarize(shelf, upto=1)
    assert ("info", "summary", None) in shelf.found(info=True)
    summarize(shelf, first_prompt="something else")
    assert [each.message for each in shelf.verify().findings if each.kind == "summary"] == [
        "the summary says something else than this release makes of the log"
    ]
    assert shelf.found() == []


@pytest.mark.parametrize(
    ("note", "found"),
    [
        (b"{", ("damage", "home", None)),
        (b'{"project_key": 3}', ("damage", "home", None)),
        (b'{"project_key": "-nowhere"}', ("damage", "home", None)),
        (b'{"project_key": "-elsewhere"}', ("info", "home", None)),
        (None, ("info", "home", None)),
    ],
)
def test_a_home_that_is_wrong_is_damage_and_none_or_another_is_information(
    shelf: Shelf, note: bytes | None, found: tuple[str, str, None]
) -> None:
    shelf.lay([said(1)])
    elsewhere = Shelf(shelf.objects, SessionRef(REF.scope, "-elsewhere", SESSION))
    elsewhere.lay([said(1)])
    if note is not None:
        shelf.put(HOME, note)
    assert found in shelf.found(info=True)


def test_objects_and_folders_with_other_names_are_named(shelf: Shelf) -> None:
    shelf.lay([said(1)])
    odd = [
        f"{LAYOUT.session('-home-a', SESSION)}/{name}" for name in ("notes.txt", "sub/Bad Name/0000000001.jsonl.zst")
    ]
    for key in odd:
        shelf.put(key, b"?")
    assert [finding.key for finding in shelf.verify().findings if finding.kind == "foreign"] == odd
    archive = Archive(shelf.objects, "memory://")
    for key in ("sessions/Ü/x", "sessions/task-1/B/x", "sessions/task-1/-home-a/B/x"):
        shelf.put(key, b"?")
    scopes, foreign = run(all_scopes(archive))
    refs, more = run(all_sessions(archive, "task-1"))
    assert (scopes, [finding.key for finding in foreign]) == (["task-1"], ["sessions/Ü"])
    assert (refs, [finding.key for finding in more]) == ([REF], ["sessions/task-1/B", "sessions/task-1/-home-a/B"])


def test_many_sessions_are_checked_at_once_and_reported_in_order(shelf: Shelf) -> None:
    refs = [
        SessionRef(REF.scope, REF.project_key, f"{number:08}-f002-4f12-a0f4-5b4be6b08923") for number in range(20)
    ]
    for ref in refs:
        Shelf(shelf.objects, ref).lay([said(1)], [said(2)])
    Shelf(shelf.objects, refs[7]).delete(1)
    told: list[SessionRef] = []
    reports = verify_sessions(Archive(shelf.objects, "memory://"), refs, lambda report: told.append(report.ref))
    assert [report.ref for report in reports] == refs
    assert sorted(told) == refs
    assert [report.ref for report in reports if report.is_damaged] == [refs[7]]


def test_a_check_writes_nothing_and_says_when_the_store_does_not_answer(shelf: Shelf) -> None:
    shelf.lay([said(1)], [said(2)])
    shelf.delete(1)
    objects = FaultyObjects(shelf.objects)
    assert verify_sessions(Archive(objects, "memory://"), [REF])[0].is_damaged
    assert not set(objects.counts) & {"create", "put", "delete"}
    objects.faults.append(Fault("fail", "get", keys="*/main/*"))
    with pytest.raises(Unavailable):
        verify_sessions(Archive(objects, "memory://"), [REF] * 9)


def test_the_store_that_every_release_has_to_read_has_no_damage(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "store")
    archive = Archive(connect((tmp_path / "store").as_uri(), Settings.load()), "golden")
    scopes, strangers = run(all_scopes(archive))
    refs = [ref for scope in scopes for ref in run(all_sessions(archive, scope))[0]]
    reports = verify_sessions(archive, refs)
    assert strangers == []
    assert len(reports) == 4
    assert {
        finding.kind for report in reports for finding in report.findings if finding.severity == "damage"
    } == set()
    assert [report.exists for report in reports].count(True) == 3
