"""What blocks may need: `needs=NAME,NAME`. Each one is made in the sandbox before the session begins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from everturn.testing import make_repository
from snippets.sandbox import TIMEOUT_S, Sandbox

TRANSCRIPT = Path(__file__).parents[1] / "fixtures" / "fence.jsonl"
REPOSITORY = {
    "README.md": "# Web\n",
    "app.py": "def greet(name):\n    return 'Hello ' + name\n",
}
SESSION = "5a1d0c1e-0b7e-4c55-9d0a-7e9b3c1f0042"
BEGINNING = SESSION.partition("-")[0]
DISPATCH = "everturn run --agent fixer --repo https://git.example/acme/web --issue 42 --prompt 'Fix issue 42.' --json"
TOKENS = """
export EVERTURN_ADMIN_TOKEN=an-admin-token-of-some-length EVERTURN_READ_TOKEN=a-read-token-of-some-length
export SECRET=a-secret-of-some-length
export EVERTURN_WEBHOOK_SECRETS="{\\"github\\": \\"$SECRET\\"}"
"""
APPEND = """
import json
from pathlib import Path
from everturn import TranscriptStore
entries = [json.loads(line) for line in Path({file!r}).read_text(encoding="utf-8").splitlines()]
store = TranscriptStore.open("s3://my-bucket/agents", scope="task-42")
await store.append({{"project_key": "-home-dev-fence", "session_id": {session!r}}}, entries)
await store.aclose()
"""


def repo(sandbox: Sandbox) -> None:
    """`https://git.example/acme/web` is a repository with a commit on `main`."""
    folder = sandbox.home.parent / "forge" / "acme" / "web"
    if not folder.exists():
        make_repository(folder, REPOSITORY)


def run(sandbox: Sandbox) -> None:
    """Agent `fixer` has worked on issue 42 of the repository, in session `5a1d0c1e-0b7e-4c55-9d0a-7e9b3c1f0042`."""
    repo(sandbox)
    assert sandbox.sh(DISPATCH, TIMEOUT_S) == 0, sandbox.output
    lines = [json.loads(line) for line in sandbox.output.splitlines() if line.startswith("{")]
    session = next(line["session_id"] for line in reversed(lines) if line.get("session_id"))
    sandbox.stand_ins = {**sandbox.stand_ins, SESSION: session, BEGINNING: session.partition("-")[0]}


def service(sandbox: Sandbox) -> None:
    """`everturn serve` is there; `EVERTURN_ADMIN_TOKEN`, `EVERTURN_READ_TOKEN` and the webhooks' `SECRET` are set."""
    assert sandbox.sh(TOKENS, TIMEOUT_S) == 0
    sandbox.background("everturn serve", "Everturn serves on", TIMEOUT_S)


def transcript(sandbox: Sandbox) -> None:
    """`s3://my-bucket/agents` holds a session of the scope `task-42`."""
    program = APPEND.format(file=str(TRANSCRIPT), session=SESSION)
    assert sandbox.python(program, "needs=transcript", TIMEOUT_S) == 0, sandbox.output


NEEDS: dict[str, Callable[[Sandbox], None]] = {"repo": repo, "run": run, "service": service, "transcript": transcript}
