"""A process that opens workdirs in children of its own, one for each line that it reads, so that they can be killed.

    python opener.py < orders > answers

An order is JSON: what to do (`open` once, or `work` on and on), and with what. The answers are the child's process id
and, when it is gone, its exit code.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import IO

from everturn.errors import EverturnError
from everturn.git.runner import Git
from everturn.model import WorkItem
from everturn.settings import inherited_environment
from workdirs.yard import Yard, git

REFUSED = 3


@dataclass(frozen=True)
class Order:
    """What a child does.

    Attributes:
        root: The folder of the workdirs.
        url: The repository.
        keep: Whether the conversation goes on.
        how: What becomes of unsaved work.
        path: A folder that goes before the others on the PATH.
        seed: What an agent that works on and on does is decided by this; `None`: it opens once.
        diary: Where it writes the names of the files that it has made.
    """

    root: str
    url: str
    keep: bool = False
    how: str = "quarantine"
    path: str = ""
    seed: int | None = None
    diary: str = ""


def main() -> None:
    for line in sys.stdin:
        order = Order(**json.loads(line))
        pid = os.fork()
        if not pid:
            os._exit(_obey(order))
        _say(pid)
        _say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _obey(order: Order) -> int:
    try:
        yard = Yard(Path(order.root))
        if order.path:
            environment = inherited_environment()
            yard.git = Git({**environment, "PATH": f"{order.path}:{environment['PATH']}"}, timeout_s=60)
        if order.seed is None:
            _open(yard, order, keep=order.keep)
        else:
            _work(yard, order, random.Random(order.seed))
    except EverturnError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    except BaseException:  # noqa: BLE001  # a child says what went wrong, and is gone
        traceback.print_exc()
        return 1
    return 0


def _open(yard: Yard, order: Order, *, keep: bool) -> Path:
    workdir = yard.workdirs(how=order.how, wait_s=30).open(WorkItem("fixer", order.url, 7), "feature", keep=keep)
    workdir.close()
    return workdir.path


def _work(yard: Yard, order: Order, chance: random.Random) -> None:
    """Be one agent after another. What is in the diary must not be lost."""
    for number in count():
        tree = _open(yard, order, keep=chance.random() < 0.3)
        name = f"mine-{order.seed}-{number}.txt"
        what = chance.choice(["nothing", "file", "commit", "staged"])
        if what == "nothing":
            continue
        (tree / name).write_text(name)
        if what != "file":
            git(tree, "add", name)
        if what == "commit":
            git(tree, "commit", "--quiet", "-m", name)
        with Path(order.diary).open("a") as diary:
            diary.write(f"{name}\n")


class Opener:
    """The process. Children are asked for one after the other.

    Args:
        process: The process.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._orders: IO[str] = process.stdin
        self._answers: IO[str] = process.stdout

    def start(self, order: Order) -> int:
        """Start a child and return its process id."""
        self._orders.write(json.dumps(asdict(order)) + "\n")
        self._orders.flush()
        return int(self._answers.readline())

    def wait(self) -> int:
        """Wait for the child, and return its exit code."""
        return int(self._answers.readline())


@contextmanager
def opener() -> Iterator[Opener]:
    """Give a process that opens workdirs in children."""
    with subprocess.Popen(
        [sys.executable, __file__],
        env={**inherited_environment(), "PYTHONPATH": str(Path(__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Opener(process)
        assert process.stdin is not None
        process.stdin.close()


if __name__ == "__main__":
    main()
