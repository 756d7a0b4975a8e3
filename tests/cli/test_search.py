"""`everturn search`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from everturn import Invalid
from everturn.cli.times import moment_ms
from everturn.clock import ManualClock
from journals import FIRST, SECOND, JournalStore, killed, resumed
from mirrored import called, ended, prompted, started

Everturn = Callable[..., Any]


@pytest.fixture
def everturn(everturn_here: Everturn) -> Everturn:
    return everturn_here


@pytest.fixture
def store(tmp_path: Path) -> JournalStore:
    """A store with a run that was killed, the one that went on, and one of another agent."""
    store = JournalStore(tmp_path)
    store.keep(FIRST, killed())
    store.keep(SECOND, resumed())
    third = [
        started("3" * 20, agent="plumber", repo="https://forge.example/acme/pipes.git"),
        prompted("Which washer fits \x1b[31mthis\x1b[0m tap?"),
        *called("Bash", {"command": "grep washer"}, "washer.txt: 12 mm"),
        ended(),
    ]
    store.keep("3" * 20, third, work="plumber@https://forge.example/acme/pipes#4")
    return store


def rows(result: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def runs(result: Any) -> set[str]:
    return {row["run_id"] for row in rows(result) if row["type"] == "hit"}


def search(everturn: Everturn, store: JournalStore, *arguments: str) -> Any:
    result = everturn("search", *arguments, "--store", store.url)
    assert result.returncode == 0, result.stderr
    return result


@pytest.mark.slow
def test_a_hit_comes_with_the_command_that_shows_its_turn(installed: Everturn, store: JournalStore) -> None:
    shown = search(installed, store, "washer worn").stdout
    assert "task:tap  answer · turn 1 · on w2" in shown
    assert "The washer is worn." in shown
    (command,) = [line.strip() for line in shown.splitlines() if line.startswith("  everturn ")]
    assert command == f"everturn journal show task:tap --run {SECOND} --turn 1 --store {store.url}"
    told = installed(*shlex.split(command)[1:])
    assert told.returncode == 0, told.stderr
    assert "The washer is worn." in told.stdout


def test_words_of_all_runs_are_found_in_any_of_their_texts(everturn: Everturn, store: JournalStore) -> None:
    found = search(everturn, store, "washer", "--json")
    assert runs(found) == {FIRST, SECOND, "3" * 20}
    assert rows(found)[-1] == {"type": "summary", "hits": 5, "compared": 5, "complete": True}
    assert runs(search(everturn, store, "see", "that", "the", "washer", "--json")) == {FIRST}


def test_options_narrow_a_search_down(everturn: Everturn, store: JournalStore) -> None:
    for options, expected in (
        (["--agent", "plumber"], {"3" * 20}),
        (["--repo", "acme/pipes"], {"3" * 20}),
        (["--work", "task:tap"], {FIRST, SECOND}),
        (["--tool", "Bash", "--kind", "tool_result"], {"3" * 20}),
        (["--since", "2h"], {FIRST, SECOND, "3" * 20}),
        (["--since", "2999-01-01"], set()),
    ):
        assert runs(search(everturn, store, "washer", *options, "--json")) == expected, options
    assert len(rows(search(everturn, store, "washer", "--limit", "2", "--json"))) == 3


def test_a_mirror_is_made_kept_and_made_anew_by_whoever_searches(everturn: Everturn, store: JournalStore) -> None:
    assert search(everturn, store, "no such words").stdout.strip() == "nothing was found"
    store.keep("4" * 20, [started("4" * 20), prompted("A drain is blocked."), ended()])
    assert runs(search(everturn, store, "drain", "--offline", "--json")) == set()
    assert runs(search(everturn, store, "drain", "--json")) == {"4" * 20}
    (mirror,) = everturn.state.glob("mirrors/*/sqlite.db")  # type: ignore[attr-defined]
    mirror.resolve().write_text("no database")
    assert runs(search(everturn, store, "drain", "--json")) == {"4" * 20}


def test_a_store_that_is_away_is_no_reason_not_to_tell_what_is_known(everturn: Everturn, store: JournalStore) -> None:
    search(everturn, store, "washer")
    folder = Path(store.url.removeprefix("file://"))
    folder.rename(folder.with_name("away"))
    gone = everturn("search", "washer", "--store", store.url)
    assert gone.returncode == 2
    assert "there are no" in gone.stderr
    assert "The washer is worn." in search(everturn, store, "washer", "--offline").stdout


@pytest.mark.slow
def test_turns_are_found_by_their_meaning_too(installed: Everturn, store: JournalStore) -> None:
    installed.variables["EVERTURN_EMBEDDER"] = "everturn.testing.embedding:word_vectors"  # type: ignore[attr-defined]
    found = search(installed, store, "--semantic", "which washer fits", "--limit", "1", "--json")
    assert [(row["run_id"], row["turn"]) for row in rows(found)[:-1]] == [("3" * 20, 1)]
    refused = installed("search", "--semantic", "washer", "--kind", "prompt", "--store", store.url)
    assert refused.returncode == 2
    assert "leave out the kind" in refused.stderr


def test_nothing_in_a_text_can_control_the_terminal(everturn: Everturn, store: JournalStore) -> None:
    shown = search(everturn, store, "which washer").stdout
    assert "Which washer fits this tap?" in shown
    assert "\x1b" not in shown
    assert "\x1b" not in search(everturn, store, "which washer", "--json").stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([""], "has no word in it"),
        (["--", "-washer"], "only says what is not to be found"),
        (["wa*"], "stands for too many words"),
        (["washer", "--since", "yesterday"], "'yesterday' is no time"),
        (["washer", "--kind", "poem"], "poem"),
        (["washer", "--offline"], "there is no mirror"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_a_hint(
    everturn: Everturn, store: JournalStore, arguments: list[str], complaint: str
) -> None:
    refused = everturn("search", "--store", store.url, *arguments)
    assert refused.returncode == 2
    assert complaint in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_time_is_how_long_ago_or_when() -> None:
    clock = ManualClock(1_763_640_000.0)
    assert moment_ms("2h", clock) == 1_763_632_800_000
    assert moment_ms("3d", clock) == 1_763_380_800_000
    assert moment_ms("2025-11-20", clock) == 1_763_596_800_000
    assert moment_ms("2025-11-20T12:00", clock) == 1_763_640_000_000
    assert moment_ms("2025-11-20T12:00+02:00", clock) == 1_763_632_800_000
    assert moment_ms("0001-01-01T00:00+14:00", clock) == moment_ms("0001-01-01", clock)
    assert moment_ms("9999-12-31T23:59:59.999-14:00", clock) == moment_ms("9999-12-31T23:59:59.999", clock)
    for wrong in ("", "soon", "-2h", "2025-13-01", "9999999999h", "2 hours"):
        with pytest.raises(Invalid, match="is no time"):
            moment_ms(wrong, clock)
