"""The tables of the SQLite mirror (docs/mirrors.md).

A run's rows follow from that run's events alone. Whatever spans runs is a view, so runs can be folded in any order.
"""

from __future__ import annotations

SCHEMA_VERSION = 1

_META = """
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT
"""

# `outcome` is what `ended` said; the view `run_outcomes` knows of runs that never said anything.
_RUNS = """
CREATE TABLE runs (
    run_id             TEXT PRIMARY KEY,
    work_key           TEXT NOT NULL,
    session_id         TEXT,
    epoch              INTEGER,
    worker             TEXT,
    agent              TEXT,
    repo               TEXT,
    issue              TEXT,
    task_id            TEXT,
    branch             TEXT,
    cwd                TEXT,
    previous_run_id    TEXT,
    resumed            INTEGER NOT NULL DEFAULT 0,
    took_over          INTEGER NOT NULL DEFAULT 0,
    began_anew         INTEGER NOT NULL DEFAULT 0,
    model              TEXT,
    cli_version        TEXT,
    started_at         TEXT,
    last_event_at      TEXT,
    ended_at           TEXT,
    outcome            TEXT,
    shutdown_reason    TEXT,
    error              TEXT,
    turns              INTEGER NOT NULL DEFAULT 0,
    model_turns        INTEGER NOT NULL DEFAULT 0,
    tool_calls         INTEGER NOT NULL DEFAULT 0,
    tool_failures      INTEGER NOT NULL DEFAULT 0,
    errors             INTEGER NOT NULL DEFAULT 0,
    input_tokens       INTEGER NOT NULL DEFAULT 0,
    output_tokens      INTEGER NOT NULL DEFAULT 0,
    cache_read_tokens  INTEGER NOT NULL DEFAULT 0,
    cache_write_tokens INTEGER NOT NULL DEFAULT 0,
    cost_usd           REAL,
    cost_is_partial    INTEGER NOT NULL DEFAULT 0,
    events             INTEGER NOT NULL DEFAULT 0,
    missing_events     INTEGER NOT NULL DEFAULT 0,
    unknown_events     INTEGER NOT NULL DEFAULT 0,
    unreadable_events  INTEGER NOT NULL DEFAULT 0
) STRICT
"""

# What each model took of a run's tokens and cost.
_MODEL_USAGE = """
CREATE TABLE model_usage (
    run_id             TEXT NOT NULL REFERENCES runs (run_id),
    model              TEXT NOT NULL,
    input_tokens       INTEGER NOT NULL,
    output_tokens      INTEGER NOT NULL,
    cache_read_tokens  INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    cost_usd           REAL,
    PRIMARY KEY (run_id, model)
) STRICT, WITHOUT ROWID
"""

# A turn begins with a prompt. `outcome` is the subtype of its result; NULL: it was cut short, or goes on.
_TURNS = """
CREATE TABLE turns (
    run_id             TEXT NOT NULL REFERENCES runs (run_id),
    turn               INTEGER NOT NULL,
    seq                INTEGER NOT NULL,
    last_seq           INTEGER NOT NULL,
    started_at         TEXT,
    ended_at           TEXT,
    resumed            INTEGER NOT NULL,
    outcome            TEXT,
    is_error           INTEGER NOT NULL DEFAULT 0,
    stop_reason        TEXT,
    model              TEXT,
    model_turns        INTEGER NOT NULL DEFAULT 0,
    duration_ms        INTEGER,
    duration_api_ms    INTEGER,
    tool_calls         INTEGER NOT NULL DEFAULT 0,
    tool_failures      INTEGER NOT NULL DEFAULT 0,
    input_tokens       INTEGER NOT NULL DEFAULT 0,
    output_tokens      INTEGER NOT NULL DEFAULT 0,
    cache_read_tokens  INTEGER NOT NULL DEFAULT 0,
    cache_write_tokens INTEGER NOT NULL DEFAULT 0,
    cost_usd           REAL,
    PRIMARY KEY (run_id, turn)
) STRICT, WITHOUT ROWID
"""

# `turn` is NULL for what comes before the first prompt. `is_error` is NULL while there is no result.
_TOOL_CALLS = """
CREATE TABLE tool_calls (
    run_id         TEXT NOT NULL REFERENCES runs (run_id),
    seq            INTEGER NOT NULL,
    turn           INTEGER,
    call_id        TEXT NOT NULL,
    tool           TEXT NOT NULL,
    parent_call_id TEXT,
    started_at     TEXT,
    ended_at       TEXT,
    duration_ms    INTEGER,
    is_error       INTEGER,
    result_seq     INTEGER,
    PRIMARY KEY (run_id, seq)
) STRICT, WITHOUT ROWID
"""

# One row for each call of a tool that names a file. Paths inside the run's directory are relative to it.
_FILES = """
CREATE TABLE files (
    run_id TEXT NOT NULL REFERENCES runs (run_id),
    seq    INTEGER NOT NULL,
    turn   INTEGER,
    path   TEXT NOT NULL,
    action TEXT NOT NULL,
    tool   TEXT NOT NULL,
    at     TEXT,
    PRIMARY KEY (run_id, seq)
) STRICT, WITHOUT ROWID
"""

_ERRORS = """
CREATE TABLE errors (
    run_id  TEXT NOT NULL REFERENCES runs (run_id),
    seq     INTEGER NOT NULL,
    turn    INTEGER,
    at      TEXT,
    kind    TEXT NOT NULL,
    tool    TEXT,
    message TEXT NOT NULL,
    PRIMARY KEY (run_id, seq)
) STRICT, WITHOUT ROWID
"""

# A long text takes several rows, its pieces. `partial`: the block was never completed, this is what came of it.
# Ids go with time, and are the same in every mirror (`values.text_id`).
_TEXTS = """
CREATE TABLE texts (
    id             INTEGER PRIMARY KEY,
    run_id         TEXT NOT NULL REFERENCES runs (run_id),
    seq            INTEGER NOT NULL,
    piece          INTEGER NOT NULL,
    turn           INTEGER,
    at             TEXT,
    kind           TEXT NOT NULL,
    tool           TEXT,
    parent_call_id TEXT,
    partial        INTEGER NOT NULL,
    text           TEXT NOT NULL
) STRICT
"""

# Datasette finds out by this spelling of `content` that the table can be searched.
_TEXTS_FTS = """
CREATE VIRTUAL TABLE texts_fts USING fts5 (
    text, content="texts", content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2'
)
"""

# How far each run is folded, and what the fold has to know to go on.
_CHECKPOINTS = """
CREATE TABLE checkpoints (
    run_id     TEXT PRIMARY KEY,
    work_key   TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    part       INTEGER NOT NULL,
    stored_seq INTEGER NOT NULL,
    state      BLOB NOT NULL
) STRICT
"""

_INDEXES = (
    "CREATE INDEX runs_by_work_key ON runs (work_key, epoch)",
    "CREATE INDEX runs_by_session_id ON runs (session_id)",
    "CREATE INDEX runs_by_started_at ON runs (started_at)",
    "CREATE UNIQUE INDEX texts_by_run ON texts (run_id, seq, piece)",
    "CREATE INDEX texts_by_kind ON texts (kind, tool)",
    "CREATE INDEX tool_calls_by_tool ON tool_calls (tool)",
    "CREATE INDEX files_by_path ON files (path)",
)

# `died`: it never ended, and another run of the work item has begun since. `open`: it goes on, or nobody knows yet.
# Epochs begin at 1 again when a work item's row in the registry was dropped.
_RUN_OUTCOMES = """
CREATE VIEW run_outcomes AS
SELECT run_id, work_key, CASE
    WHEN outcome IS NOT NULL THEN outcome
    WHEN EXISTS (
        SELECT 1 FROM runs AS later WHERE later.work_key = runs.work_key AND later.run_id <> runs.run_id AND (
            later.previous_run_id = runs.run_id
            OR later.epoch > runs.epoch AND later.started_at >= runs.started_at
            OR later.epoch = 1 AND later.previous_run_id IS NULL AND later.started_at > runs.started_at
            AND later.run_id IS NOT runs.previous_run_id
        )
    ) THEN 'died'
    ELSE 'open'
END AS outcome
FROM runs
"""

_SUMS = """
    count(*) AS runs,
    sum(run_outcomes.outcome = 'failed') AS failed,
    sum(run_outcomes.outcome = 'died') AS died,
    sum(turns) AS turns,
    sum(tool_calls) AS tool_calls,
    sum(tool_failures) AS tool_failures,
    sum(input_tokens) AS input_tokens,
    sum(output_tokens) AS output_tokens,
    sum(cache_read_tokens) AS cache_read_tokens,
    sum(cache_write_tokens) AS cache_write_tokens,
    sum(cost_usd) AS cost_usd,
    max(cost_is_partial) AS cost_is_partial,
    min(started_at) AS started_at,
    max(last_event_at) AS last_event_at
FROM runs JOIN run_outcomes USING (run_id)
"""

_SESSIONS = f"""
CREATE VIEW sessions AS
SELECT session_id, max(runs.work_key) AS work_key, max(agent) AS agent, max(repo) AS repo, max(issue) AS issue,
{_SUMS}
WHERE session_id IS NOT NULL
GROUP BY session_id
"""

_WORK_ITEMS = f"""
CREATE VIEW work_items AS
SELECT runs.work_key AS work_key, max(agent) AS agent, max(repo) AS repo, max(issue) AS issue,
{_SUMS}
GROUP BY runs.work_key
"""

_DAYS = f"""
CREATE VIEW days AS
SELECT substr(runs.started_at, 1, 10) AS day, agent, repo, {_SUMS}
GROUP BY day, agent, repo
"""

OF_A_RUN = ("runs", "model_usage", "turns", "tool_calls", "files", "errors", "texts", "checkpoints")

STATEMENTS = (
    _META,
    _RUNS,
    _MODEL_USAGE,
    _TURNS,
    _TOOL_CALLS,
    _FILES,
    _ERRORS,
    _TEXTS,
    _TEXTS_FTS,
    _CHECKPOINTS,
    *_INDEXES,
    _RUN_OUTCOMES,
    _SESSIONS,
    _WORK_ITEMS,
    _DAYS,
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
