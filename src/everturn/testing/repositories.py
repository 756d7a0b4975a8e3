"""Small git repositories to work in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from everturn.git.runner import Git
from everturn.settings import inherited_environment

GIT_TIMEOUT_S = 60.0
IDENTITY = {"name": "Everturn", "email": "everturn@example.invalid"}


def make_repository(folder: Path, files: Mapping[str, str], message: str = "Begin") -> Path:
    """Make a git repository with one commit on `main`, and return its folder.

    Args:
        folder: Where; it must not exist.
        files: Names and contents; may be none.
        message: The commit's.
    """
    git = Git(inherited_environment(), GIT_TIMEOUT_S)
    folder.mkdir(parents=True)
    git.run(["init", "--quiet", "--initial-branch=main"], folder)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    git.run(["add", "."], folder)
    identity = [word for key, value in IDENTITY.items() for word in ("-c", f"user.{key}={value}")]
    git.run([*identity, "commit", "--quiet", "--allow-empty", "--message", message], folder)
    return folder
