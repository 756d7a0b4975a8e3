"""A process that runs a program in children of its own, one for each line that it reads, so that they can die.

    python -m housekeeping.dying PROGRAM < orders > answers

An order is the arguments of the program's `main`, as JSON. The answer is the child's exit code and what `main` has
returned, which is nothing if it has died.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib import import_module


def main(program: str) -> None:
    run: Callable[..., int] = import_module(program).main
    for line in sys.stdin:
        said, say = os.pipe()
        pid = os.fork()
        if not pid:
            os._exit(_obey(run, json.loads(line), say))
        os.close(say)
        with os.fdopen(said) as answer:
            returned = answer.read()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        sys.stdout.write(f"{json.dumps([code, returned])}\n")
        sys.stdout.flush()


def _obey(run: Callable[..., int], arguments: list[str], say: int) -> int:
    try:
        os.write(say, str(run(*arguments)).encode())
    except BaseException:  # noqa: BLE001  # a child says what went wrong, and is gone
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main(*sys.argv[1:])
