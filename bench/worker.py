"""One measurement, in a process of its own. Takes what to do as JSON, prints what it found as JSON.

    python -m bench.worker '{"operation": "load", "kind": "everturn", "bucket": "b", "session": "s"}'

`kind` is `everturn`, `baseline` or `limit`. The server is the one that `AWS_ENDPOINT_URL` names.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict
from functools import partial
from itertools import count
from typing import Any

import anyio
from claude_agent_sdk import SessionKey, SessionStore, list_sessions_from_store, project_key_for_directory

from bench.baseline import BaselineStore
from bench.compact import compact_session, freeing_at_once, wait_for_compaction
from bench.dispatch import dispatches
from bench.frames import frames
from bench.limit import Limit, payloads, whole
from bench.meter import Figures, digest, measure, size_in_memory, size_of_lines
from bench.replay import Replay, groups, session_of
from bench.servers import Server
from everturn import TranscriptStore
from everturn.log.objects import run
from everturn.log.stores import connect
from everturn.settings import Settings
from everturn.transcripts.archive import SessionRef
from everturn.transcripts.layout import Layout

DIRECTORY = "/home/dev/project"
PROJECT = project_key_for_directory(DIRECTORY)
SCOPE = "bench"
WARM = "warm"

Asked = dict[str, Any]


@asynccontextmanager
async def open_store(kind: str, bucket: str, **settings: Any) -> AsyncIterator[SessionStore]:
    """Use a store of this kind, with the default settings but for those given."""
    if kind == "baseline":
        yield BaselineStore(bucket)
        return
    async with TranscriptStore.open(_url(bucket), scope=SCOPE, settings=Settings.load(**settings)) as store:
        yield store


def _store_for(asked: Asked) -> AbstractAsyncContextManager[SessionStore]:
    return open_store(asked["kind"], asked["bucket"], **asked.get("settings", {}))


def key(session: str, subpath: str | None = None) -> SessionKey:
    """Return the key of a session of the benchmark."""
    found: SessionKey = {"project_key": PROJECT, "session_id": session}
    if subpath is not None:
        found["subpath"] = subpath
    return found


async def append(asked: Asked, server: Server) -> dict[str, Any]:
    """Append frames one after the other. All of them go to one transcript.

    Compaction in the background, if it is on, has its share in processor time and requests, up to its end.
    """
    batches = _batches(asked)
    session = asked["session"]
    if asked["kind"] == "limit":
        return await _append_all(server, *_raw_appends(asked, batches))
    async with _store_for(asked) as store:
        # The first append to a session asks where its end is: once in the life of a writer.
        await store.append(key(session), batches.pop(0))
        finish = partial(wait_for_compaction, store)
        return await _append_all(server, partial(store.append, key(session)), batches, finish)


def _batches(asked: Asked) -> list[list[Any]]:
    return [frame.entries() for frame in frames(asked["count"], asked.get("below_bytes"))]


async def _append_all(
    server: Server,
    step: Callable[[Any], Awaitable[None]],
    batches: Sequence[Any],
    finish: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    latencies_s: list[float] = []

    async def all_of_them() -> None:
        for batch in batches:
            started = time.perf_counter()
            await step(batch)
            latencies_s.append(time.perf_counter() - started)
        finish()

    _, figures = await measure(server, all_of_them)
    figures.latencies_s = latencies_s
    return asdict(figures)


def _raw_appends(asked: Asked, batches: list[list[Any]]) -> tuple[Callable[[Any], Awaitable[None]], Sequence[Any]]:
    """Return what the limit appends, and how, on a connection that is open already."""
    limit, numbers = Limit(asked["bucket"]), count(1)
    first, *rest = payloads(batches)
    limit.append(f"limit/{asked['session']}/0", first)

    async def put(data: bytes) -> None:
        limit.append(f"limit/{asked['session']}/{next(numbers):010}", data)

    return put, rest


async def load(asked: Asked, server: Server) -> dict[str, Any]:
    """Load a transcript in a process that has loaded a tiny one before."""
    if asked["kind"] == "limit":
        limit = Limit(asked["bucket"])
        limit.load(f"limit/{WARM}")

        async def raw() -> list[Any]:
            return limit.load(f"limit/{asked['session']}")

        return _described(*await measure(server, raw))
    async with _warm_store(asked) as store:
        return _described(*await measure(server, partial(store.load, key(asked["session"]))))


def _described(entries: list[Any] | None, figures: Figures) -> dict[str, Any]:
    found = entries or []
    return {
        **asdict(figures),
        "entries": len(found),
        "lines_bytes": size_of_lines(found),
        "memory_bytes": size_in_memory(found),
        "digest": digest(found),
    }


async def fill(asked: Asked, server: Server) -> dict[str, Any]:  # noqa: ARG001  # as all operations
    """Write one transcript, to be loaded later, with compaction at an agent's pace if it is on."""
    batches = _batches(asked)
    if asked["kind"] == "limit":
        Limit(asked["bucket"]).append(f"limit/{asked['session']}", whole(batches))
        return {}
    with freeing_at_once():
        async with _store_for(asked) as store:
            await _write(store, asked["session"], batches)
    return {}


async def fill_many(asked: Asked, server: Server) -> dict[str, Any]:  # noqa: ARG001  # as all operations
    """Write many sessions, to be listed later. All have the same frames."""
    batches = _batches(asked)
    async with _store_for(asked) as store:
        for index in range(asked["sessions"]):
            await _write(store, _session_id(index), batches)
    return {}


async def go_on(asked: Asked, server: Server) -> dict[str, Any]:  # noqa: ARG001  # as all operations
    """Let one of many sessions go on, some seconds after all of them have paused."""
    await anyio.sleep(asked["after_s"])
    async with _store_for(asked) as store:
        await _write(store, _session_id(0), _batches(asked))
    return {}


def _session_id(index: int) -> str:
    return f"00000000-0000-4000-8000-{index:012}"


async def _write(store: SessionStore, session: str, batches: list[list[Any]]) -> None:
    for batch in batches:
        await store.append(key(session), batch)
        wait_for_compaction(store)


async def list_sessions(asked: Asked, server: Server) -> dict[str, Any]:
    """List sessions by the store's own method."""
    async with _warm_store(asked) as store:
        return _counted(*await measure(server, partial(store.list_sessions, PROJECT)))


async def list_session_summaries(asked: Asked, server: Server) -> dict[str, Any]:
    """List summaries by the store's own method."""
    async with _warm_store(asked) as store:
        return _counted(*await measure(server, partial(store.list_session_summaries, PROJECT)))


async def first_summaries(asked: Asked, server: Server) -> dict[str, Any]:
    """List summaries by the store's own method when nobody has left a catalog yet."""
    objects = connect(_url(asked["bucket"]), Settings.load())
    run(objects.delete([Layout(SCOPE).catalog(PROJECT)]))
    return await list_session_summaries(asked, server)


async def list_titles(asked: Asked, server: Server) -> dict[str, Any]:
    """List sessions with their titles, by the SDK's helper: it asks for summaries, or reads every session."""
    async with _warm_store(asked) as store:
        return _counted(*await measure(server, partial(list_sessions_from_store, store, directory=DIRECTORY)))


def _counted(found: Sequence[Any], figures: Figures) -> dict[str, Any]:
    return {**asdict(figures), "sessions": len(found)}


@asynccontextmanager
async def _warm_store(asked: Asked) -> AsyncIterator[SessionStore]:
    async with _store_for(asked) as store:
        await store.load(key(WARM))
        yield store


async def hour(asked: Asked, server: Server) -> dict[str, Any]:
    """Replay an hour of a session, resume it once, and count what that takes."""
    frames_of_it = session_of(asked["seconds"])
    lingering = groups(frames_of_it, asked.get("settings", {}).get("linger_s", 0.0))
    replay = Replay(server, PROJECT, asked["session"])
    await replay.write(_store_for(asked), lingering)
    loaded = await replay.resume(_store_for(asked), frames_of_it)
    return {
        "phases": replay.phases,
        "frames": len(frames_of_it),
        "groups": len(lingering),
        "entries": sum(len(frame.entries()) for frame in frames_of_it),
        "entries_loaded": loaded,
    }


async def compact_by_command(asked: Asked, server: Server) -> dict[str, Any]:
    """Compact a session as by command, and once more when what that makes superfluous is old enough to be freed."""
    url, ref = _url(asked["bucket"]), SessionRef(SCOPE, PROJECT, asked["session"])
    server.take_counts()
    run(compact_session(url, ref))
    with freeing_at_once():
        run(compact_session(url, ref))
    return {"requests": server.take_counts()}


async def compact(asked: Asked, server: Server) -> dict[str, Any]:
    """Compact a transcript, and free what that makes superfluous."""
    ref = SessionRef(SCOPE, PROJECT, asked["session"])

    async def operation() -> None:
        with freeing_at_once():
            run(compact_session(_url(asked["bucket"]), ref))

    _, figures = await measure(server, operation)
    return asdict(figures)


async def dispatch(asked: Asked, server: Server) -> dict[str, Any]:  # noqa: ARG001  # as all operations
    """Dispatch work items, to a store in a folder or on the server."""
    return await dispatches(asked["rounds"], _url(asked["bucket"]) if asked["store"] == "s3" else None)


OPERATIONS: dict[str, Callable[[Asked, Server], Awaitable[dict[str, Any]]]] = {
    operation.__name__: operation
    for operation in (
        append,
        load,
        fill,
        fill_many,
        go_on,
        list_sessions,
        first_summaries,
        list_session_summaries,
        list_titles,
        hour,
        compact_by_command,
        compact,
        dispatch,
    )
}


def _url(bucket: str) -> str:
    return f"s3://{bucket}/store"


def main() -> None:
    """Do what the command line says."""
    logging.disable(logging.WARNING)  # a lost session, for one, is worth a line
    asked = json.loads(sys.argv[1])
    server = Server(os.environ["AWS_ENDPOINT_URL"])
    print(json.dumps(anyio.run(OPERATIONS[asked["operation"]], asked, server)))


if __name__ == "__main__":
    main()
