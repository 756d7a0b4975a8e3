"""Data as the SDK's reference adapters leave it: their layouts, written with their servers' own clients.

The adapters stand in examples/session_stores of github.com/anthropics/claude-agent-sdk-python, and those of
TypeScript in examples/session-stores of github.com/anthropics/claude-agent-sdk-typescript.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from typing import Any, Protocol

import psycopg
import redis
from claude_agent_sdk import SessionKey, SessionStore, SessionStoreEntry

from imports.servers import Server, postgres_url, redis_url

NOW_MS = 1_760_000_000_000


class Adapter(Protocol):
    """A store that somebody else's program has filled."""

    url: str

    def append(self, project: str, session: str, entries: Sequence[Any], subpath: str | None = None) -> None:
        """Do what the adapter does when the SDK hands over entries."""


class S3Adapter:
    """`<prefix><project>/<session>/[<subpath>/]part-<ms, 13 digits>-<6 hex digits>.jsonl`."""

    def __init__(self, client: Any, bucket: str, prefix: str = "transcripts/") -> None:
        self._client, self._bucket, self._prefix = client, bucket, prefix
        self._clock = count(NOW_MS)
        self.url = f"s3://{bucket}/{prefix}"

    def append(
        self, project: str, session: str, entries: Sequence[Any], subpath: str | None = None, ms: int | None = None
    ) -> None:
        """Write a part; `ms` is what the writer's clock says."""
        body = "\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries) + "\n"
        self.put("/".join(filter(None, (project, session, subpath))), body.encode(), ms)

    def put(self, folder: str, body: bytes, ms: int | None = None) -> str:
        """Write anything as a part."""
        number = next(self._clock)
        return self.put_at(f"{folder}/part-{ms or number:013d}-{number % 0xFFFFFF:06x}.jsonl", body)

    def put_at(self, name: str, body: bytes) -> str:
        """Write any object below the prefix."""
        key = f"{self._prefix}{name}"
        self._client.put_object(Bucket=self._bucket, Key=key, Body=body, ContentType="application/x-ndjson")
        return key


class RedisAdapter:
    """Lists, with a sorted set and sets as indexes."""

    def __init__(self, server: Server, prefix: str = "transcripts") -> None:
        self.client = redis.Redis.from_url(redis_url(server))
        self.prefix = f"{prefix}:" if prefix else ""
        self.url = redis_url(server) + (f"?prefix={prefix}" if prefix else "")

    def append(self, project: str, session: str, entries: Sequence[Any], subpath: str | None = None) -> None:
        """Push the entries, and note them in an index."""
        base = f"{self.prefix}{project}:{session}"
        with self.client.pipeline(transaction=True) as pipe:
            pipe.rpush(f"{base}:{subpath}" if subpath else base, *(json.dumps(entry) for entry in entries))
            if subpath:
                pipe.sadd(f"{base}:__subkeys", subpath)
            else:
                pipe.zadd(f"{self.prefix}{project}:__sessions", {session: NOW_MS})
            pipe.execute()


def mirror_to_redis(port: int, password: str) -> SessionStore:
    """Return what the SDK hands over its entries to."""
    adapter = RedisAdapter(Server(port, password))

    class Mirror(SessionStore):
        async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
            adapter.append(key["project_key"], key["session_id"], entries, key.get("subpath"))

        async def load(self, key: SessionKey) -> None:
            return None

    return Mirror()


class PostgresAdapter:
    """A row an entry. Of the Python SDK, unless it is the other one."""

    def __init__(self, server: Server, database: str, *, typescript: bool = False, table: str | None = None) -> None:
        self.url = postgres_url(server, database)
        self.connection = psycopg.connect(self.url, autocommit=True)
        self._typescript = typescript
        self._table = table or ("claude_session_entries" if typescript else "claude_session_store")
        if table:
            self.url += f"?table={table}"
        self._execute(TYPESCRIPT if typescript else PYTHON)

    def append(self, project: str, session: str, entries: Sequence[Any], subpath: str | None = None) -> None:
        """Insert the entries."""
        given: dict[str, Any] = {"project_key": project, "session_id": session, "subpath": subpath}
        if not self._typescript:
            given |= {"subpath": subpath or "", "mtime": NOW_MS}
        query = f"INSERT INTO {{table}} ({', '.join(given)}, entry) VALUES ({'%s, ' * len(given)}%s)"
        for entry in entries:
            self._execute(query, *given.values(), json.dumps(entry))

    def _execute(self, query: str, *values: Any) -> None:
        self.connection.execute(query.format(table=self._table).encode(), values or None)

    def close(self) -> None:
        self.connection.close()


PYTHON = """
CREATE TABLE IF NOT EXISTS {table} (
  project_key text NOT NULL, session_id text NOT NULL, subpath text NOT NULL DEFAULT '',
  seq bigserial, entry jsonb NOT NULL, mtime bigint NOT NULL,
  PRIMARY KEY (project_key, session_id, subpath, seq))
"""
TYPESCRIPT = """
CREATE TABLE IF NOT EXISTS {table} (
  id BIGSERIAL PRIMARY KEY, project_key TEXT NOT NULL, session_id TEXT NOT NULL, subpath TEXT,
  entry JSONB NOT NULL, created_at TIMESTAMPTZ NOT NULL DEFAULT NOW())
"""
