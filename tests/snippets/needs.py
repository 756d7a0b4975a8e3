"""What blocks may need: `needs=NAME,NAME`. Each one is made in the sandbox before the session begins."""

from __future__ import annotations

from collections.abc import Callable

from everturn.testing import make_repository
from snippets.sandbox import Sandbox

REPOSITORY = {
    "README.md": "# Web\n",
    "app.py": "def greet(name):\n    return 'Hello ' + name\n",
}


def repo(sandbox: Sandbox) -> None:
    """`https://git.example/acme/web` is a repository with a commit on `main`."""
    make_repository(sandbox.home.parent / "forge" / "acme" / "web", REPOSITORY)


NEEDS: dict[str, Callable[[Sandbox], None]] = {"repo": repo}
