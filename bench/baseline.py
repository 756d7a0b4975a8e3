"""The baseline: a session store in the layout that the SDK documents for its reference S3 adapter.

Our own code, after the documented behaviour of `examples/session_stores/` in anthropics/claude-agent-sdk-python: one
PUT an append, of uncompressed JSON lines, to `<project key>/<session id>[/<subpath>]/part-<ms>-<random>.jsonl`
(13 digits, 6 hexadecimal digits); a load lists the parts, sorts them by name and fetches 16 at a time; sessions are
listed by listing all their parts; there are no summaries. It uses boto3 in worker threads.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import boto3
from botocore.config import Config
from claude_agent_sdk import SessionKey, SessionStore, SessionStoreEntry, SessionStoreListEntry

PARALLEL_GETS = 16

_PART = re.compile(r"([^/]+)/part-([0-9]{13})-[0-9a-f]{6}\.jsonl")


class BaselineStore(SessionStore):
    """See the module.

    Args:
        bucket: Where.
        prefix: Goes before all names.
    """

    def __init__(self, bucket: str, prefix: str = "transcripts") -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._client: Any = boto3.client("s3", config=Config(max_pool_connections=PARALLEL_GETS))
        self._last_ms = 0

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Write one part."""
        if not entries:
            return
        lines = [json.dumps(entry, separators=(",", ":")) for entry in entries]
        body = "".join(f"{line}\n" for line in lines).encode()
        put = partial(
            self._client.put_object,
            Bucket=self._bucket,
            Key=f"{self._folder(key)}{self._part_name()}",
            Body=body,
            ContentType="application/x-ndjson",
        )
        await anyio.to_thread.run_sync(put)

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """Read all parts."""
        return await anyio.to_thread.run_sync(self._load, self._folder(key))

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """List the sessions by listing every part of theirs."""
        return await anyio.to_thread.run_sync(self._list, f"{self._prefix}/{project_key}/")

    def _load(self, folder: str) -> list[SessionStoreEntry] | None:
        names = sorted(name for name in self._names(folder, Delimiter="/") if "/" not in name.removeprefix(folder))
        entries: list[SessionStoreEntry] = []
        with ThreadPoolExecutor(PARALLEL_GETS) as pool:
            for body in list(pool.map(self._get, names)):
                entries += [json.loads(line) for line in body.split("\n") if line.strip()]
        return entries or None

    def _get(self, name: str) -> str:
        data: bytes = self._client.get_object(Bucket=self._bucket, Key=name)["Body"].read()
        return data.decode()

    def _list(self, folder: str) -> list[SessionStoreListEntry]:
        newest: dict[str, int] = {}
        for name in self._names(folder):
            match = _PART.fullmatch(name.removeprefix(folder))
            if match:
                newest[match[1]] = max(newest.get(match[1], 0), int(match[2]))
        return [{"session_id": session_id, "mtime": mtime} for session_id, mtime in newest.items()]

    def _names(self, folder: str, **how: str) -> Iterator[str]:
        more: dict[str, str] = {}
        while True:
            page = self._client.list_objects_v2(Bucket=self._bucket, Prefix=folder, **how, **more)
            yield from (item["Key"] for item in page.get("Contents", ()))
            if not page.get("NextContinuationToken"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _folder(self, key: SessionKey) -> str:
        pieces = (self._prefix, key["project_key"], key["session_id"], key.get("subpath"))
        return "".join(f"{piece}/" for piece in pieces if piece)

    def _part_name(self) -> str:
        self._last_ms = max(int(time.time() * 1000), self._last_ms + 1)
        return f"part-{self._last_ms:013}-{secrets.token_hex(3)}.jsonl"
