"""Full-text search over the SQLite mirror (docs/mirrors.md, decision 0034).

Each step has a bound of its own, so that an answer takes some milliseconds however common a word is. The index
names the texts, the newest first; so many of them are read and compared; and an answer says
whether some were left out.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from everturn.mirrors.hits import Filters, Found, Hit
from everturn.mirrors.query import Query
from everturn.mirrors.selection import Selection, select
from everturn.mirrors.wordmarks import Finder

MAX_COMPARED = 500  # texts that are read and ranked
MAX_LOOKED_AT = 10_000  # texts with the words of which is asked whether the filters let them through
_SAMPLE = 256  # texts by which it is reckoned how common a word is
_READ_LENGTH = 8_192  # characters of a text that count for its rank
_SATURATION, _LENGTH_WEIGHT = 1.2, 0.75  # the usual constants of BM25, k1 and b
_NEXT = "SELECT DISTINCT (SELECT min(id) FROM texts WHERE id >= value) FROM json_each(:ids)"
_MATCHES = "SELECT rowid FROM texts_fts WHERE texts_fts MATCH :match"
_NEWEST_FIRST = "ORDER BY rowid DESC"


@dataclass(frozen=True, slots=True)
class _Candidate:
    id: int
    counts: list[int]
    length: int


def search(database: sqlite3.Connection, query: Query, filters: Filters, limit: int) -> Found:
    """Return the texts that fit a query best, one for each event.

    Args:
        database: The mirror, in a transaction: what is read belongs together then.
        query: What to look for.
        filters: Where.
        limit: How many to return at most.
    """
    ids, is_all = _candidates(database, query, select(database, filters))
    finder = Finder(query)
    scores = _scores(database, finder, _read(database, finder, ids))
    best = sorted(scores, key=lambda each: (scores[each], each), reverse=True)
    return Found(tuple(_hits(database, finder, best, scores, limit)), len(ids), is_all)


def _candidates(database: sqlite3.Connection, query: Query, selection: Selection) -> tuple[list[int], bool]:
    """Return the ids of texts that fit, the highest first, and whether these are all."""
    if selection.condition and not selection.ids:
        ids, is_all = _let_through(database, query, selection)
    else:
        # The plus keeps SQLite from asking the full-text index once for each id.
        listed = f"AND +rowid IN ({selection.ids})" if selection.ids else ""
        sql = f"{_MATCHES} {listed} {_NEWEST_FIRST} LIMIT {MAX_COMPARED + 1}"
        ids, is_all = _column(database, sql, {"match": query.expression, **selection.values}), True
    return ids[:MAX_COMPARED], is_all and len(ids) <= MAX_COMPARED


def _let_through(database: sqlite3.Connection, query: Query, selection: Selection) -> tuple[list[int], bool]:
    """Return the ids of texts that have the words and that a filter which lets much through lets through."""
    sql = f"""
        SELECT texts.id, {selection.condition} FROM (
            {_MATCHES} {_NEWEST_FIRST} LIMIT {MAX_LOOKED_AT + 1}
        ) AS found
        CROSS JOIN texts ON texts.id = found.rowid"""  # noqa: S608
    ids: list[int] = []
    rows = database.execute(sql, {"match": query.expression, **selection.values})
    for looked_at, (number, fits) in enumerate(rows):
        if looked_at == MAX_LOOKED_AT or len(ids) > MAX_COMPARED:
            return ids, False
        if fits:
            ids.append(number)
    return ids, True


def _column(database: sqlite3.Connection, sql: str, values: dict[str, Any]) -> list[int]:
    return [row[0] for row in database.execute(sql, values)]


def _read(database: sqlite3.Connection, finder: Finder, ids: Sequence[int]) -> list[_Candidate]:
    sql = """
        SELECT id, substr(text, 1, ?), length(text) FROM texts
        WHERE id IN (SELECT value FROM json_each(?))"""
    rows = database.execute(sql, (_READ_LENGTH, json.dumps(ids)))
    return [_Candidate(number, finder.counts(text), length) for number, text, length in rows]


def _scores(database: sqlite3.Connection, finder: Finder, candidates: Sequence[_Candidate]) -> dict[int, float]:
    """Return a number for each text: BM25, by counts of our own.

    A word that SQLite finds and we do not, for the sake of its accents, counts as if it stood there once.
    """
    if not candidates:
        return {}
    weights = _weights(database, finder)
    usual = sum(each.length for each in candidates) / len(candidates) or 1.0
    found: dict[int, float] = {}
    for each in candidates:
        damping = _SATURATION * (1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * each.length / usual)
        counts = [max(count, 1) for count in each.counts]
        found[each.id] = sum(
            weight * count * (_SATURATION + 1) / (count + damping)
            for weight, count in zip(weights, counts, strict=True)
        )
    return found


def _weights(database: sqlite3.Connection, finder: Finder) -> list[float]:
    """Return how much each word tells, by the part of the texts that have it: of a sample, spread evenly over all."""
    if finder.terms < 2:
        return [1.0] * finder.terms
    first, last = database.execute("SELECT (SELECT min(id) FROM texts), (SELECT max(id) FROM texts)").fetchone()
    spread = [first + (last - first) * number // _SAMPLE for number in range(_SAMPLE)]
    sample = _read(database, finder, _column(database, _NEXT, {"ids": json.dumps(spread)}))
    having = [sum(1 for each in sample if each.counts[term]) for term in range(finder.terms)]
    return [math.log(1 + (len(sample) - count + 0.5) / (count + 0.5)) for count in having]


def _hits(
    database: sqlite3.Connection, finder: Finder, best: Sequence[int], scores: dict[int, float], limit: int
) -> list[Hit]:
    """Return the best, one for each event: a long text has several rows."""
    found: dict[tuple[str, int], Hit] = {}
    for number in best:
        if len(found) == limit:
            break
        hit = _hit(database, finder, number, scores[number])
        found.setdefault((hit.run_id, hit.seq), hit)
    return list(found.values())


def _hit(database: sqlite3.Connection, finder: Finder, number: int, score: float) -> Hit:
    sql = """
        SELECT work_key, run_id, texts.turn, seq, at, kind, tool, agent, repo, session_id, worker, text
        FROM texts LEFT JOIN runs USING (run_id) WHERE id = ?"""
    work, run_id, turn, seq, at, kind, tool, agent, repo, session_id, worker, text = database.execute(
        sql, (number,)
    ).fetchone()
    return Hit(
        work=work,
        run_id=run_id,
        turn=turn or 0,
        seq=seq,
        at=at,
        kind=kind,
        tool=tool,
        agent=agent,
        repo=repo,
        session_id=session_id,
        worker=worker,
        score=score,
        excerpt=finder.excerpt(text),
    )
