"""A store with a key keeps its transcripts from whoever can only read the bucket."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import anyio
import pytest
from claude_agent_sdk import SessionKey

from everturn import Corrupt, Denied, Settings, TranscriptStore
from everturn.log.encryption import Key

KEY: SessionKey = {"project_key": "-home-a", "session_id": "7df19cb2-f002-4f12-a0f4-5b4be6b08923"}
PROMPT: Any = {"type": "user", "uuid": "u-1", "message": {"role": "user", "content": "the secret plan"}}


def settings_with(path: Path, secret: bytes) -> Settings:
    path.write_text(f"k1 {base64.b64encode(secret).decode()}\n")
    return Settings.load(encryption_key_file=path)


def test_neither_transcript_nor_summary_is_legible_in_the_store(tmp_path: Path) -> None:
    settings = settings_with(tmp_path / "keys", bytes(32))
    url = (tmp_path / "store").as_uri()

    async def main() -> None:
        async with TranscriptStore.open(url, scope="task-1", settings=settings) as store:
            await store.append(KEY, [PROMPT])
            assert await store.load(KEY) == [PROMPT]
            (summary,) = await store.list_session_summaries(KEY["project_key"])
            assert "secret plan" in str(summary)
        with pytest.raises(Denied, match="no key is set"):
            await TranscriptStore.open(url, scope="task-1").load(KEY)

    anyio.run(main)
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"format.json", "0000000001.jsonl.zst", f"{KEY['session_id']}.json"}
    assert not [path for path in files if b"secret" in path.read_bytes()]


def test_keys_may_come_from_a_function(tmp_path: Path) -> None:
    asked: list[str | None] = []

    def keys(name: str | None) -> Key:
        asked.append(name)
        return Key("from-the-vault", bytes(32))

    async def main() -> None:
        url = (tmp_path / "store").as_uri()
        async with TranscriptStore.open(url, scope="task-1", keys=keys) as store:
            await store.append(KEY, [PROMPT])
            assert await store.load(KEY) == [PROMPT]

    anyio.run(main)
    assert {None, "from-the-vault"} <= set(asked)


def test_a_damaged_summary_is_made_anew_though_it_was_encrypted(tmp_path: Path) -> None:
    settings = settings_with(tmp_path / "keys", bytes(32))
    url = (tmp_path / "store").as_uri()

    async def main() -> None:
        async with TranscriptStore.open(url, scope="task-1", settings=settings) as store:
            await store.append(KEY, [PROMPT])
        (path,) = (tmp_path / "store" / "summaries").rglob("*.json")
        path.write_bytes(path.read_bytes()[:-1])
        (summary,) = await store.list_session_summaries(KEY["project_key"])
        assert "secret plan" in str(summary)

    anyio.run(main)


def test_a_session_of_which_a_part_cannot_be_decrypted_can_be_deleted(tmp_path: Path) -> None:
    settings = settings_with(tmp_path / "keys", bytes(32))
    url = (tmp_path / "store").as_uri()

    async def main() -> None:
        async with TranscriptStore.open(url, scope="task-1", settings=settings) as store:
            await store.append(KEY, [PROMPT])
            (part,) = (tmp_path / "store" / "sessions").rglob("*.zst")
            part.write_bytes(part.read_bytes()[:-1])
            with pytest.raises(Corrupt, match=part.name):
                await store.load(KEY)
            await store.delete(KEY)
            assert await store.load(KEY) is None

    anyio.run(main)
