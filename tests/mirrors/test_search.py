"""What a search finds in a mirror, in which order, and what it says of the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from everturn.journal.events import Event, TextDelta
from everturn.mirrors import search as searching
from everturn.mirrors import selection
from everturn.mirrors.hits import Filters, Found, Hit
from everturn.mirrors.query import parse_query
from everturn.mirrors.search import search
from everturn.mirrors.selection import matching_repos
from mirrored import DAY_MS, NOON_MS, MirrorOfRuns, answered, called, ended, prompted, resulted, started

WEB = "https://forge.example/acme/web.git"
API = "git@forge.example:acme/api"


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[MirrorOfRuns]:
    mirror = MirrorOfRuns(tmp_path / "mirror.db")
    yield mirror
    mirror.close()


@pytest.fixture
def filled(mirror: MirrorOfRuns) -> MirrorOfRuns:
    """A mirror of three runs of two agents in two repositories."""
    mirror.add(
        "run-1",
        [
            started("run-1", agent="fixer", repo=WEB, issue="7", work="fixer@web#7"),
            prompted("Mend the login page"),
            *called("Bash", {"command": "pytest"}, "E   ConnectionError: login timeout"),
            answered("The login page waits for ever. I will set a timeout."),
            resulted(),
            prompted("Now the logout page"),
            answered("Done with the logout page."),
            ended(),
        ],
        work="fixer@web#7",
    )
    mirror.add(
        "run-2",
        [
            started("run-2", agent="writer", repo=API, worker="worker-2", task_id="docs"),
            prompted("Describe the timeout of the login"),
            *called("Read", {"file_path": "/desk/login.py"}, "TIMEOUT_S = 3  # login", call_id="c2"),
            *called("Bash", {"command": "ls"}, "no such thing", call_id="c3", is_error=True),
            ended(),
        ],
        at_ms=NOON_MS + DAY_MS,
        work="task:docs",
    )
    mirror.add("run-3", [prompted("login at last")], at_ms=NOON_MS + 2 * DAY_MS, work="task:late")
    return mirror


def look(mirror: MirrorOfRuns, typed: str, limit: int = 10, **filters: Any) -> Found:
    return search(mirror.database, parse_query(typed), Filters(**filters), limit)


def places(found: Found) -> set[tuple[str, int]]:
    return {(hit.run_id, hit.seq) for hit in found.hits}


def marked(hit: Hit) -> str:
    return "".join(f"[{piece.text}]" if piece.is_match else piece.text for piece in hit.excerpt)


def test_a_hit_says_who_where_and_when(filled: MirrorOfRuns) -> None:
    (hit,) = look(filled, "logout done").hits
    assert (hit.work, hit.run_id, hit.turn, hit.seq) == ("fixer@web#7", "run-1", 2, 8)
    assert (hit.agent, hit.repo, hit.worker, hit.session_id) == ("fixer", WEB, "worker-1", "session-1")
    assert (hit.kind, hit.tool, hit.at) == ("answer", None, "2025-11-20T12:00:07.000Z")
    assert marked(hit) == "[Done] with the [logout] page."


def test_prompts_answers_and_what_tools_are_given_and_answer_are_found(filled: MirrorOfRuns) -> None:
    assert places(look(filled, "login timeout")) == {("run-1", 4), ("run-1", 5), ("run-2", 2), ("run-2", 4)}
    assert places(look(filled, "pytest")) == {("run-1", 3)}
    assert {(hit.kind, hit.tool) for hit in look(filled, "ConnectionError").hits} == {("tool_result", "Bash")}


def test_what_a_killed_run_had_begun_to_say_is_found(mirror: MirrorOfRuns) -> None:
    mirror.add(
        "run-1", [started("run-1"), prompted("go"), TextDelta("m1", 0, "half a sen"), TextDelta("m1", 0, "tence")]
    )
    assert marked(look(mirror, "sentence").hits[0]) == "half a [sentence]"


def test_a_run_whose_beginning_is_lost_is_found_too(filled: MirrorOfRuns) -> None:
    (hit,) = look(filled, "last").hits
    assert (hit.work, hit.agent, hit.turn) == ("task:late", None, 1)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"agent": "fixer"}, {("run-1", 2), ("run-1", 4), ("run-1", 5)}),
        ({"agent": "nobody"}, set()),
        ({"repo": WEB}, {("run-1", 2), ("run-1", 4), ("run-1", 5)}),
        ({"repo": "https://FORGE.example/acme/web"}, {("run-1", 2), ("run-1", 4), ("run-1", 5)}),
        ({"repo": "acme/api"}, {("run-2", 2), ("run-2", 3), ("run-2", 4)}),
        ({"repo": "api", "kind": "tool_input"}, {("run-2", 3)}),
        ({"repo": "pi"}, set()),
        ({"work": "task:docs"}, {("run-2", 2), ("run-2", 3), ("run-2", 4)}),
        ({"work": "docs", "tool": "Read"}, {("run-2", 3), ("run-2", 4)}),
        ({"tool": "Bash"}, {("run-1", 4)}),
        ({"tool": "Bash", "kind": "tool_input"}, set()),
        ({"kind": "prompt"}, {("run-1", 2), ("run-2", 2), ("run-3", 1)}),
        ({"since_ms": NOON_MS + DAY_MS}, {("run-2", 2), ("run-2", 3), ("run-2", 4), ("run-3", 1)}),
        ({"since_ms": NOON_MS + DAY_MS + 2500}, {("run-2", 4), ("run-3", 1)}),
        ({"until_ms": NOON_MS + 3500}, {("run-1", 2), ("run-1", 4)}),
        ({"agent": "writer", "kind": "prompt", "since_ms": NOON_MS}, {("run-2", 2)}),
    ],
)
@pytest.mark.parametrize("listed", [selection.MAX_LISTED, 0])
def test_filters_let_through_the_same_whether_they_are_listed_or_asked(
    filled: MirrorOfRuns,
    monkeypatch: pytest.MonkeyPatch,
    filters: dict[str, Any],
    expected: set[tuple[str, int]],
    listed: int,
) -> None:
    monkeypatch.setattr(selection, "MAX_LISTED", listed)
    found = look(filled, "login", **filters)
    assert places(found) == expected
    assert found.is_all


def test_a_text_with_more_of_the_words_comes_first(mirror: MirrorOfRuns) -> None:
    texts = ["fox and something else", "fox fox fox", "fox " + "and a lot of other things " * 20]
    mirror.add("run-1", [prompted(text) for text in texts])
    assert [hit.seq for hit in look(mirror, "fox").hits] == [2, 1, 3]


def test_a_rare_word_tells_more_than_a_common_one(mirror: MirrorOfRuns) -> None:
    common: list[Event] = [prompted(f"the number {number}") for number in range(50)]
    mirror.add("run-1", [*common, prompted("the the the zebra"), prompted("zebra zebra zebra the")])
    assert [hit.seq for hit in look(mirror, "the zebra").hits] == [52, 51]


def test_of_equals_the_newest_comes_first(mirror: MirrorOfRuns) -> None:
    mirror.add("run-1", [prompted("fox"), prompted("fox"), prompted("fox")])
    assert [hit.seq for hit in look(mirror, "fox", limit=2).hits] == [3, 2]


def test_a_long_text_is_one_hit_and_shows_its_best_place(mirror: MirrorOfRuns) -> None:
    text = "zebra at the beginning " + "nothing to see here " * 10_000 + "and a striped zebra at the end"
    mirror.add("run-1", [prompted(text)])
    found = look(mirror, "zebra")
    assert [hit.seq for hit in found.hits] == [1]
    assert "[striped] [zebra] at the end" in marked(look(mirror, "striped zebra").hits[0])


@pytest.mark.parametrize("filters", [{}, {"kind": "prompt"}, {"agent": "fixer"}])
@pytest.mark.parametrize("listed", [selection.MAX_LISTED, 0])
def test_an_answer_says_if_only_the_newest_were_compared(
    mirror: MirrorOfRuns, monkeypatch: pytest.MonkeyPatch, filters: dict[str, Any], listed: int
) -> None:
    monkeypatch.setattr(selection, "MAX_LISTED", listed)
    monkeypatch.setattr(searching, "MAX_COMPARED", 5)
    mirror.add("run-1", [started("run-1", agent="fixer"), *(prompted(f"fox {number}") for number in range(8))])
    found = look(mirror, "fox", **filters)
    assert (found.looked_at, found.is_all) == (5, False)
    assert {hit.seq for hit in found.hits} == {5, 6, 7, 8, 9}
    assert look(mirror, "fox 3", **filters).is_all


def test_a_filter_that_is_asked_stops_asking_and_says_so(
    mirror: MirrorOfRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "MAX_LISTED", 0)
    monkeypatch.setattr(searching, "MAX_LOOKED_AT", 4)
    mirror.add("run-1", [answered("fox"), *(prompted(f"fox {number}") for number in range(8))])
    found = look(mirror, "fox", kind="answer")
    assert (found.hits, found.is_all) == ((), False)
    assert look(mirror, "fox 3", kind="prompt").is_all


def test_nothing_is_found_in_an_empty_mirror(mirror: MirrorOfRuns) -> None:
    found = look(mirror, "fox and zebra", agent="fixer", since_ms=0)
    assert (found.hits, found.looked_at, found.is_all) == ((), 0, True)


def test_a_repository_is_known_by_the_end_of_its_path(filled: MirrorOfRuns) -> None:
    assert matching_repos(filled.database, "acme/web") == [WEB]
    assert matching_repos(filled.database, "git@forge.example:acme/api.git") == [API]
    assert matching_repos(filled.database, "eb") == []


@pytest.mark.parametrize("name", ["agent", "repo", "work", "tool", "kind"])
def test_what_no_text_can_hold_is_found_nowhere(filled: MirrorOfRuns, name: str) -> None:
    found = search(filled.database, parse_query("login"), Filters(**{name: "\udcff"}), 10)
    assert found.hits == ()


def test_a_time_before_the_year_1000_is_before_all_others(filled: MirrorOfRuns) -> None:
    long_ago = Filters(since_ms=-46_388_678_400_000)  # the year 500
    assert search(filled.database, parse_query("login"), long_ago, 10).hits
