"""Clean environments, one for each Python, with what `pip install everturn` brings and nothing else.

The dependencies are installed once, and again when they change; what is built is installed anew each time. No pip is
in there: the environments are what the list of contents and the check of licences look at.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from release import ENVIRONMENTS, ROOT

SUPPORTED = ("3.11", "3.12", "3.13")
_PIP = ("-m", "pip", "--disable-pip-version-check", "--python")


def interpreters() -> dict[str, Path]:
    """Return the supported Pythons of this machine by version: this one, those on `PATH`, and pyenv's."""
    found = {"{}.{}".format(*sys.version_info): Path(sys.executable)}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in SUPPORTED:
        named = shutil.which(f"python{version}")
        candidates = [*sorted(pyenv.glob(f"{version}.*/bin/python")), *([Path(named)] if named else [])]
        for candidate in candidates:
            if version not in found and _version(candidate) == version:
                found[version] = candidate
    return dict(sorted((version, python) for version, python in found.items() if version in SUPPORTED))


def _version(python: Path) -> str | None:
    """Return what an interpreter says it is; `None` if it cannot make environments, or is only pyenv's signpost."""
    tell = "import sys, venv; print('{}.{}'.format(*sys.version_info))"
    done = subprocess.run([python, "-I", "-c", tell], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def environment(version: str, python: Path) -> Path:
    """Return the interpreter of the clean environment of a version, made now if need be."""
    folder = ENVIRONMENTS / version
    stamp, wanted = folder / ".installed", _wanted(python)
    inside = folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"Setting up {folder.relative_to(ROOT)} ...", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
        pip(inside, "install", "--quiet", "-c", str(ROOT / "constraints.txt"), *_dependencies())
        stamp.write_text(wanted)
    return inside


def _dependencies() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return list(project["dependencies"])


def _wanted(python: Path) -> str:
    """Return a name for what is to be there: the interpreter, the dependencies, their versions."""
    parts = (str(python), *_dependencies(), (ROOT / "constraints.txt").read_text())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def pip(inside: Path, *arguments: str) -> str:
    """Run this environment's pip for another one, and return what it said.

    Raises:
        RuntimeError: It failed; with what it said.
    """
    done = subprocess.run([sys.executable, *_PIP, inside, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip {arguments[0]} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def install(inside: Path, package: Path) -> None:
    """Install what was built, without its dependencies: they are there, and `pip check` says whether they do."""
    pip(inside, "install", "--quiet", "--no-deps", "--force-reinstall", str(package))
    pip(inside, "check")


def distributions(inside: Path) -> dict[str, str]:
    """Return the versions of what is installed, by normalised name."""
    tell = "from importlib.metadata import distributions as d\nfor x in d(): print(x.name, x.version)"
    lines = subprocess.run([inside, "-I", "-c", tell], capture_output=True, text=True, check=True).stdout.splitlines()
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in map(str.split, lines)}


def newest() -> Path:
    """Return the interpreter of the environment that lists and licences are made from: that of this Python."""
    version = "{}.{}".format(*sys.version_info)
    return environment(version, interpreters()[version])


if __name__ == "__main__":
    print(newest())
