"""A repository made up for the benchmark: always the same one, in the shape of many services that live together.

Its text has the words, the repetition and so the compressibility of code. It is fed to `git fast-import`, which takes
seconds, and packed as a forge packs: with deltas and a bitmap.
"""

from __future__ import annotations

import subprocess
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from math import exp
from pathlib import Path
from random import Random

SERVICES = ("cart", "orders", "payments", "search", "users", "stock", "prices", "reviews", "mail", "media", "fraud")
SERVICES += ("tax", "returns", "shipping", "reports", "ledger")  # 16, of a twentieth of all files each
PLACES = (*(f"services/{name}" for name in SERVICES), "libs/common", "libs/http", "apps/web", "docs/guides")
ONE_SERVICE = "services/cart"
MAIN = "refs/heads/main"

_BEGAN_AT = 1_700_000_000
_FILES_A_FOLDER = 16
_IGNORED = b"build/\n*.o\n"
_LINES = 60_000
_LINE_BYTES = 45
_WORDS = 3_000
_SPREAD = 1.2  # of the lengths of files: a few are far larger than most
_SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "cart", "key", "get", "set")
_SHAPES = (
    "{}{} = {}({}, {})",
    "{}if {} is not {}.{}:",
    "{}return {}.{}[{}]",
    "{}{}: {} = {}.{}()",
    "{}# {} {} {} {}",
)


@dataclass(frozen=True)
class Shape:
    """How large a repository is.

    Attributes:
        files: How many it has.
        file_bytes: How large they are on average. Half of them have less than half of it.
        commits: How many there are after the first.
        changed: How many files each of them changes.
    """

    files: int
    file_bytes: int
    commits: int
    changed: int


@dataclass
class Origin:
    """The repository, bare, as a forge has it.

    Args:
        path: Where.
        shape: How large it is.
    """

    path: Path
    shape: Shape
    _random: Random = field(default_factory=lambda: Random(5))
    _files: list[tuple[bytes, array[int]]] = field(default_factory=list)
    _commits: Iterator[int] = field(default_factory=count)
    _pool: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        """How it is cloned as if from elsewhere."""
        return f"file://{self.path}"

    def make(self) -> None:
        """Make it."""
        run(["init", "--quiet", "--bare", "--initial-branch=main", str(self.path)], self.path.parent)
        run(["config", "uploadpack.allowFilter", "true"], self.path)
        self._pool = _lines(self._random)
        self._files = [(_name(number), self._text()) for number in range(self.shape.files)]
        self._import([range(len(self._files)), *(self._some() for _ in range(self.shape.commits))])
        run(["repack", "-a", "-d", "-f", "-q", "--window=3", "--write-bitmap-index"], self.path)

    def push(self, changed: int) -> str:
        """Add a commit, as if somebody had pushed it, and return it."""
        self._import([self._some(changed)])
        return self.head()

    def head(self) -> str:
        """Return the last commit."""
        return run(["rev-parse", MAIN], self.path)

    def _some(self, changed: int | None = None) -> list[int]:
        wanted = min(self.shape.changed if changed is None else changed, len(self._files))
        return sorted(self._random.sample(range(len(self._files)), wanted))

    def _text(self) -> array[int]:
        length = self._random.lognormvariate(0, _SPREAD) / exp(_SPREAD**2 / 2) * self.shape.file_bytes
        lines = min(max(int(length / _LINE_BYTES), 3), 10_000)
        return array("I", self._random.choices(range(_LINES), k=lines))

    def _edit(self, lines: array[int]) -> None:
        for _ in range(self._random.randint(1, 8)):
            lines[self._random.randrange(len(lines))] = self._random.randrange(_LINES)
        lines.extend(self._random.choices(range(_LINES), k=self._random.randint(0, 3)))

    def _import(self, commits: list[list[int] | range]) -> None:
        with subprocess.Popen(
            ["git", "fast-import", "--quiet", "--done", "--force"],  # noqa: S607  # git is found on the PATH
            cwd=self.path,
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None
            for place, changed in enumerate(commits):
                number = next(self._commits)
                start = b"from %b^0\n" % MAIN.encode() if number and not place else b""
                process.stdin.writelines(self._commit(number, changed, start))
            process.stdin.write(b"done\n")
        if process.returncode:
            raise RuntimeError("git fast-import failed")

    def _commit(self, number: int, changed: list[int] | range, start: bytes) -> Iterator[bytes]:
        yield b"commit %b\ncommitter A <a@example.org> %d +0000\n" % (MAIN.encode(), _BEGAN_AT + 3600 * number)
        message = b"Change %d files" % len(changed)
        yield b"data %d\n%b\n%b" % (len(message), message, start)
        if not number:
            yield _file(b".gitignore", _IGNORED)
        for index in changed:
            name, lines = self._files[index]
            if number:
                self._edit(lines)
            yield _file(name, b"\n".join([self._pool[line] for line in lines]) + b"\n")
        yield b"\n"


ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "LC_ALL": "C.UTF-8",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_OPTIONAL_LOCKS": "0",
}


def run(arguments: list[str], folder: Path) -> str:
    """Run git as a person does, with nothing configured, and return what it printed."""
    done = subprocess.run(
        ["git", *arguments],  # noqa: S607  # the same
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"git {' '.join(arguments)}: {done.stderr}")
    return done.stdout.strip()


def _file(name: bytes, text: bytes) -> bytes:
    return b"M 100644 inline %b\ndata %d\n%b\n" % (name, len(text), text)


def _name(number: int) -> bytes:
    """Spread files over places, and in each over folders of folders. Every repository has some at the top."""
    if number < 3:
        return (b"README.md", b"Makefile", b"pyproject.toml")[number]
    place, rest = PLACES[number % len(PLACES)], number // len(PLACES)
    folder = rest // _FILES_A_FOLDER
    part = ("src", "tests", "config", "api")[folder % 4]
    return f"{place}/{part}/module_{folder // 4 // 4}/part_{folder // 4 % 4}/file_{rest}.py".encode()


def _lines(random: Random) -> list[bytes]:
    """Return lines of what looks like code. A few words come often, and most of them seldom, as in a language."""
    words = ["".join(random.choices(_SYLLABLES, k=random.randint(2, 5))) for _ in range(_WORDS)]
    weights = [1 / rank for rank in range(1, _WORDS + 1)]
    said = iter(random.choices(words, weights, k=_LINES * 4))
    made = []
    for _ in range(_LINES):
        shape = random.choice(_SHAPES)
        indent = "    " * random.randint(0, 3)
        made.append(shape.format(indent, *(next(said) for _ in range(4))).encode())
    return made
