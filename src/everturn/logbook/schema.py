"""The tables of the logbook. docs/logbook.md describes them for people who open the file."""

from __future__ import annotations

SCHEMA_VERSION = 1
APPLICATION_ID = 0x45764C62  # "EvLb", by which the file is known as a logbook

STATEMENTS = (
    """
    CREATE TABLE deliveries (
        number        INTEGER PRIMARY KEY AUTOINCREMENT,
        forge         TEXT NOT NULL,
        delivery_id   TEXT NOT NULL,
        event         TEXT NOT NULL,
        facts         TEXT,
        state         TEXT NOT NULL,
        accepted_at   REAL NOT NULL,
        done_at       REAL,
        attempts      INTEGER NOT NULL DEFAULT 0,
        next_at       REAL,
        details       TEXT NOT NULL DEFAULT '[]',
        freed         INTEGER NOT NULL DEFAULT 0,
        failing_since REAL,
        UNIQUE (forge, delivery_id)
    ) STRICT
    """,
    "CREATE INDEX deliveries_open ON deliveries (number, accepted_at) WHERE done_at IS NULL",
    "CREATE INDEX deliveries_done ON deliveries (done_at) WHERE done_at IS NOT NULL",
    """
    CREATE TABLE acts (
        number  INTEGER PRIMARY KEY AUTOINCREMENT,
        at      REAL NOT NULL,
        source  TEXT NOT NULL,
        action  TEXT NOT NULL,
        asked   TEXT NOT NULL,
        state   TEXT NOT NULL,
        details TEXT NOT NULL DEFAULT '[]',
        done_at REAL
    ) STRICT
    """,
    """
    CREATE TABLE sweeps (
        number   INTEGER PRIMARY KEY AUTOINCREMENT,
        reason   TEXT NOT NULL,
        begun_at REAL NOT NULL,
        state    TEXT NOT NULL,
        done_at  REAL,
        facts    TEXT NOT NULL DEFAULT '{}'
    ) STRICT
    """,
    """
    CREATE TABLE samples (
        at         REAL NOT NULL,
        name       TEXT NOT NULL,
        value      INTEGER NOT NULL,
        PRIMARY KEY (at, name)
    ) STRICT, WITHOUT ROWID
    """,
)
