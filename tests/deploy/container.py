"""What the container's files say, read as an engine reads them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
IGNORE_FILE = ROOT / ".dockerignore"


@dataclass(frozen=True)
class Instruction:
    """One of a Dockerfile."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """Its arguments, without flags; in exec form, those of the list."""
        if self.text.startswith("["):
            found: list[str] = json.loads(self.text)
            return found
        return [word for word in self.text.split() if not word.startswith("--")]

    @property
    def flags(self) -> dict[str, str]:
        """What it says as `--name=value` before anything else."""
        before = re.match(r"(?:--\S+\s+)*", self.text)
        assert before
        return dict(re.findall(r"--([a-z-]+)=(\S+)", before[0]))


def stages() -> list[list[Instruction]]:
    """Return the instructions of each stage."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found: list[list[Instruction]] = []
    for line in filter(None, joined.splitlines()):
        name, text = line.split(maxsplit=1)
        if name == "FROM":
            found.append([])
        found[-1].append(Instruction(name, text))
    return found


def one(instructions: list[Instruction], name: str) -> Instruction:
    """Return the only instruction of a name."""
    (found,) = (each for each in instructions if each.name == name)
    return found


def variables(instructions: list[Instruction]) -> dict[str, str]:
    """Return what `ENV` sets."""
    return dict(re.findall(r"(\w+)=(\S+)", one(instructions, "ENV").text))


def health_check(instructions: list[Instruction]) -> list[str]:
    """Return the command of the health check."""
    found: list[str] = json.loads(one(instructions, "HEALTHCHECK").text.split("CMD ", maxsplit=1)[1])
    return found


def is_ignored(path: str) -> bool:
    """Tell whether a path stays outside: the last line that fits it, or a folder that it is in, decides."""
    parents = [str(each) for each in (PurePosixPath(path), *PurePosixPath(path).parents)][:-1]
    ignored = False
    for line in IGNORE_FILE.read_text(encoding="utf-8").splitlines():
        pattern = line.lstrip("!")
        if not line or line.startswith("#"):
            continue
        names = [each.name for each in map(PurePosixPath, parents)] if pattern.startswith("**/") else parents
        if any(fnmatch(name, pattern.removeprefix("**/")) for name in names):
            ignored = not line.startswith("!")
    return ignored
