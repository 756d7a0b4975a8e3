"""Runs a snippet as a program of its own: `run_python.py FILE NAME`. `await` may stand at its top level."""

import ast
import inspect
import linecache
import sys
from pathlib import Path

import anyio

file, name = sys.argv[1:]
sys.argv = [name]
sys.path[0] = str(Path.cwd())
source = Path(file).read_text(encoding="utf-8")
linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
names: dict[str, object] = {"__name__": "__main__"}
code = compile(source, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


async def main() -> None:
    """Run all of it, on one event loop if it awaits anything."""
    awaited = eval(code, names)
    if inspect.isawaitable(awaited):
        await awaited


if code.co_flags & inspect.CO_COROUTINE:
    anyio.run(main)
else:
    exec(code, names)
