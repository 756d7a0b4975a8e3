"""`everturn sessions export`."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from everturn.cli.options import JsonOption, StoreOption
from everturn.cli.output import plain, print_json, printing
from everturn.cli.sessions.common import ScopeOption, SessionArgument, load, open_store
from everturn.conversations import wording
from everturn.conversations.export import Format, agent_files, file_name, render
from everturn.conversations.loading import StoredSession
from everturn.errors import Conflict, Invalid


def command(  # one parameter for each option
    session: SessionArgument,
    form: Annotated[Format, typer.Option("--format", help="What to make of it.")],
    store: StoreOption = None,
    scope: ScopeOption = None,
    output: Annotated[
        Path | None, typer.Option(help="A file, or a folder that exists; default: standard output.")
    ] = None,
    subagents: Annotated[
        bool, typer.Option("--subagents", help="Show what subagents did; with jsonl, in files of their own.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a session to a file: its entries as JSON lines, or the conversation as Markdown or HTML."""
    to_folder = output is not None and output.is_dir()
    if form is Format.JSONL and subagents and not to_folder:
        raise Invalid(
            "subagents' entries go to files of their own",
            hint="name a folder that exists with --output, or leave --subagents out",
        )
    if as_json and output is None:
        raise Invalid("standard output cannot hold the export and a report on it", hint="name a file with --output")
    found = load(open_store(store), session, scope)
    if output is None:
        with printing():
            for piece in render(found, form, agents=subagents):
                sys.stdout.buffer.write(piece)
        return
    files = dict(_files(found, form, output, to_folder=to_folder, agents=subagents))
    if not force:
        _refuse_existing(files)
    written = {path: write_whole(path, pieces) for path, pieces in files.items()}
    with printing():
        if as_json:
            print_json(_report(found, form, written))
            return
        for path, size_bytes in written.items():
            sys.stdout.write(plain(f"{path}: {wording.size(size_bytes)}") + "\n")


def write_whole(path: Path, pieces: Iterable[bytes]) -> int:
    """Write a file so that nobody ever sees half of it, and return its size. Only its owner may read it.

    Raises:
        Invalid: It cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".everturn-", dir=path.parent)
    except OSError as error:
        raise _not_written(path, error) from None
    try:
        with os.fdopen(handle, "wb") as file:
            for piece in pieces:
                file.write(piece)
            size_bytes = file.tell()
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink()
        if isinstance(error, OSError):
            raise _not_written(path, error) from None
        raise
    return size_bytes


def _report(found: StoredSession, form: Format, written: dict[Path, int]) -> dict[str, object]:
    return {
        "session_id": found.ref.session_id,
        "scope": found.ref.scope,
        "format": form.value,
        "entries": len(found.entries),
        "files": [{"path": str(path), "size_bytes": size_bytes} for path, size_bytes in written.items()],
    }


def _files(
    found: StoredSession, form: Format, output: Path, *, to_folder: bool, agents: bool
) -> Iterator[tuple[Path, Iterator[bytes]]]:
    yield output / file_name(found, form) if to_folder else output, render(found, form, agents=agents)
    if form is Format.JSONL and agents:
        for name, pieces in agent_files(found):
            yield output / name, pieces


def _refuse_existing(files: Iterable[Path]) -> None:
    taken = [path for path in files if os.path.lexists(path)]
    if taken:
        raise Conflict(
            f"{taken[0]} exists already", hint="name another file with --output, or overwrite it with --force"
        )


def _not_written(path: Path, error: OSError) -> Invalid:
    return Invalid(
        f"{path} cannot be written: {error.strerror}", hint="name a file in a folder that you may write to"
    )
