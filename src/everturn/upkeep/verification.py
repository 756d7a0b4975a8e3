"""Checking sessions: their logs, the chains of their entries, their sizes, and the notes beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any

import orjson

from everturn.errors import Corrupt
from everturn.log.entries import encode
from everturn.log.names import Span, names_in, unescape
from everturn.log.objects import Objects, run
from everturn.log.reader import list_spans
from everturn.log.verification import LEAVE, REPAIR, Finding, LogReport, Severity, verify_log
from everturn.transcripts.archive import SCOPES, Archive, SessionRef
from everturn.transcripts.layout import Layout
from everturn.transcripts.sizes import too_large
from everturn.transcripts.summaries import fold
from everturn.upkeep.alignment import without_repeats

PARALLEL_SESSIONS = 4


@dataclass(frozen=True)
class SessionReport:
    """What a check of one session has found.

    Attributes:
        ref: The session.
        logs: Its main transcript (`None`) and its sub-transcripts, by their subpaths.
        findings: Everything that is not as it should be, the worst first.
    """

    ref: SessionRef
    logs: dict[str | None, LogReport]
    findings: tuple[Finding, ...]

    @property
    def is_damaged(self) -> bool:
        """Whether something is missing, unreadable or contradictory."""
        return any(finding.severity == "damage" for finding in self.findings)

    @property
    def exists(self) -> bool:
        """Whether the session has entries, or should have: a deleted one has not."""
        return self.is_damaged or any(log.exists for log in self.logs.values())

    @property
    def entries(self) -> int:
        """How many entries could be read."""
        return sum(len(row.entries) for log in self.logs.values() for row in log.rows)


async def verify_session(objects: Objects, ref: SessionRef) -> SessionReport:
    """Check one session with its sub-transcripts. Reads everything, writes nothing.

    Raises:
        Unavailable: The store did not answer.
    """
    layout = Layout(ref.scope)
    session = layout.session(ref.project_key, ref.session_id)
    subpaths = names_in(await objects.list_folders(f"{session}/sub"))
    logs = {subpath: await verify_log(objects, ref.folder(subpath)) for subpath in (None, *subpaths)}
    found = [_for(finding, subpath) for subpath, log in logs.items() for finding in log.findings]
    found += await _strangers(objects, session)
    if any(log.exists for log in logs.values()):
        found += _broken_chains(logs)
        found += _sizes(logs)
        found += await _summary(objects, layout, ref, logs[None])
        found += await check_home(objects, layout, ref)
    return SessionReport(ref, logs, tuple(sorted(found, key=_rank)))


def verify_sessions(
    archive: Archive, refs: Sequence[SessionRef], done: Callable[[SessionReport], None] = lambda _: None
) -> list[SessionReport]:
    """Check several sessions, some of them at the same time.

    Args:
        archive: The store.
        refs: The sessions.
        done: Is told each report when it is there, in any order.

    Returns:
        The reports, in the order of `refs`.
    """
    with ThreadPoolExecutor(PARALLEL_SESSIONS, "everturn-verify") as pool:
        waiting = [pool.submit(lambda ref: run(verify_session(archive.objects, ref)), ref) for ref in refs]
        try:
            for each in as_completed(waiting):
                done(each.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [each.result() for each in waiting]


async def all_sessions(archive: Archive, scope: str) -> tuple[list[SessionRef], list[Finding]]:
    """Return everything in a scope that has a session's folder, what is damaged or deleted included.

    Returns:
        The sessions, and a finding for each folder whose name is not one of ours.
    """
    layout, objects = Layout(scope), archive.objects
    refs: list[SessionRef] = []
    strangers = _foreign_folders(layout.projects, folders := await objects.list_folders(layout.projects))
    for project_key in names_in(folders):
        sessions = layout.sessions(project_key)
        strangers += _foreign_folders(sessions, folders := await objects.list_folders(sessions))
        refs += [SessionRef(scope, project_key, session_id) for session_id in names_in(folders)]
    return refs, strangers


async def all_scopes(archive: Archive) -> tuple[list[str], list[Finding]]:
    """Return the scopes of a store, and a finding for each folder beside them whose name is not one of ours."""
    folders = await archive.objects.list_folders(SCOPES)
    return names_in(folders), _foreign_folders(SCOPES, folders)


def _for(finding: Finding, subpath: str | None) -> Finding:
    """Say which log to repair, where it is not the main one."""
    if subpath is None or finding.advice != REPAIR:
        return finding
    return replace(finding, advice=f"{REPAIR}, and with --subpath {subpath}")


def _rank(finding: Finding) -> tuple[int, str, int]:
    order: dict[Severity, int] = {"damage": 0, "warning": 1, "info": 2}
    return order[finding.severity], finding.key, finding.number or 0


def _foreign_folders(parent: str, segments: list[str]) -> list[Finding]:
    return [
        _foreign(f"{parent}/{segment}", "the folder's name is not one of ours; nobody looks into it")
        for segment in sorted(segments)
        if unescape(segment) is None
    ]


def _foreign(key: str, message: str) -> Finding:
    return Finding("warning", "foreign", key, message, "find out who put it here, and move it away")


async def _strangers(objects: Objects, session: str) -> list[Finding]:
    """Find what lies in a session's folder outside its logs; inside them, the check of the log does."""
    found = []
    for item in await objects.listing(session):
        pieces = item.key.removeprefix(f"{session}/").split("/")
        is_sub = pieces[0] == "sub" and len(pieces) > 2 and unescape(pieces[1]) is not None
        if not is_sub and not (pieces[0] == "main" and len(pieces) > 1):
            found.append(_foreign(item.key, "it lies outside the session's logs; readers pass over it"))
    return found


# --- Chains and sizes ---------------------------------------------------------------------------------------------


def _broken_chains(logs: dict[str | None, LogReport]) -> Iterator[Finding]:
    """Find entries that follow one that is nowhere in the session.

    Nothing is wrong with an entry that follows none: the first one, a compaction's boundary (it names what it stands
    for in `logicalParentUuid`, which may be gone), the first of a side chain. Several may follow the same one:
    parallel tool calls, a conversation that went on from an earlier point. A sub-transcript may follow the main one.
    """
    known = {entry.get("uuid") for log in logs.values() for entry in _objects_in(log)}
    for log in logs.values():
        told: set[str] = set()
        for row in log.rows:
            for entry in row.entries:
                parent = entry.get("parentUuid") if isinstance(entry, dict) else None
                if isinstance(parent, str) and parent not in known and parent not in told:
                    told.add(parent)
                    yield _broken_chain(log, row.seq, row.span, str(entry.get("uuid")), parent)


def _objects_in(log: LogReport) -> Iterator[dict[str, Any]]:
    return (entry for row in log.rows for entry in row.entries if isinstance(entry, dict))


def _broken_chain(log: LogReport, seq: int, span: Span, uuid: str, parent: str) -> Finding:
    message = f"entry {uuid} follows {parent}, which is nowhere in the session"
    advice = "a resumed agent may not be shown what came before; if a local transcript has it, repair with --from"
    return Finding("warning", "chain", log.stock.key(span), message, advice, seq)


def _sizes(logs: dict[str | None, LogReport]) -> Iterator[Finding]:
    for log in logs.values():
        total_bytes = sum(log.stock.held[span].part.header.size for span in {row.span for row in log.rows})
        for message in too_large(
            total_bytes, (len(encode([entry]).lines) for row in log.rows for entry in row.entries)
        ):
            advice = "let the agent compact the conversation, or begin a new one"
            yield Finding("warning", "oversized", log.stock.folder, message, advice)


# --- What stands beside the logs ----------------------------------------------------------------------------------


async def _summary(objects: Objects, layout: Layout, ref: SessionRef, log: LogReport) -> list[Finding]:
    key, tail = layout.summary(ref.project_key, ref.session_id), log.stock.tail
    folder = log.stock.folder
    data = await contents(objects, key)
    if data is None:
        return [Finding("info", "summary", key, "there is no summary; listings read the log instead", LEAVE)]
    record = summary_record(data)
    if record is None:
        advice = "delete it; listings read the log until it is written anew"
        return [Finding("warning", "summary", key, "the summary is damaged", advice)]
    if record["upto"] > tail and record["upto"] > await _tail_now(objects, folder):
        message = f"the summary was made of numbers up to {record['upto']}, but the log ends with {tail}"
        return [Finding("damage", "tail", folder, message, REPAIR, tail + 1)]
    if record["upto"] < tail and any(row.entries for row in log.rows if row.seq > record["upto"]):
        message = f"the summary knows the log up to number {record['upto']} of {tail}"
        return [Finding("info", "summary", key, message, "it is written anew when the session next pauses")]
    if not log.is_damaged and record["upto"] == tail and record["data"] not in _folds(ref, log):
        message = "the summary says something else than this release makes of the log"
        return [Finding("info", "summary", key, message, "it is written anew when the session next pauses")]
    return []


async def _tail_now(objects: Objects, folder: str) -> int:
    """Look again: a run may have gone on since the log was read."""
    return max((span.last for span in await list_spans(objects, folder)), default=0)


def _folds(ref: SessionRef, log: LogReport) -> list[object]:
    """Return what the summary may be: a writer's fold has entries that were sent twice, a reader's has not."""
    entries = list(_objects_in(log))
    return [_fold(ref, entries), _fold(ref, without_repeats(entries))]


def _fold(ref: SessionRef, entries: list[dict[str, Any]]) -> object:
    folded = fold((ref.project_key, ref.session_id), None, entries)
    return None if folded is None else folded["data"]


async def check_home(objects: Objects, layout: Layout, ref: SessionRef) -> list[Finding]:
    """Check the note that says under which project key a session lives."""
    key = layout.home(ref.session_id)
    data = await contents(objects, key)
    if data is None:
        message = "no note says where the session lives; plain stores write none, and runs make it when they need it"
        return [Finding("info", "home", key, message, LEAVE)]
    home = (_record(data) or {}).get("project_key")
    if not isinstance(home, str):
        message = "the note that says where the session lives is damaged; runs cannot resume it"
        return [Finding("damage", "home", key, message, "everturn sessions repair writes it anew")]
    if home == ref.project_key:
        return []
    if await objects.listing(layout.log(home, ref.session_id, None)):
        message = f"the session's home is {home}; runs go on there, not under {ref.project_key}"
        return [Finding("info", "home", key, message, LEAVE)]
    message = f"the note says that the session lives under {home}, but there is nothing; runs would begin anew"
    return [Finding("damage", "home", key, message, "everturn sessions repair writes it anew")]


async def contents(objects: Objects, key: str) -> bytes | None:
    """Return what a note holds; nothing if it cannot be decrypted; `None` if there is none.

    Raises:
        Denied: The key it is encrypted with is not at hand.
    """
    try:
        stored = await objects.get(key)
    except Corrupt:
        return b""
    return None if stored is None else stored.data


def summary_record(data: bytes) -> dict[str, Any] | None:
    """Return what a stored summary says, or `None` if it is damaged."""
    record = _record(data) or {}
    is_whole = type(record.get("upto")) is int and isinstance(record.get("data"), dict)
    return record if is_whole else None


def _record(data: bytes) -> dict[str, Any] | None:
    try:
        record = orjson.loads(data)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
