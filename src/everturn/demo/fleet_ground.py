"""What the demo's fleet stands on: a folder, repositories at a forge that is none, a model, and the service."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from everturn.clock import Ids
from everturn.demo.fleet_story import FORGE, PROJECTS, Part, Project, reply
from everturn.demo.stage import machine_environment
from everturn.demo.worker import Plan
from everturn.errors import Unavailable
from everturn.settings import Settings
from everturn.testing import ScriptedModel, kill_machine, make_repository

STOP_TIMEOUT_S = 30.0
REQUEST_TIMEOUT_S = 30.0
CLAIM_TTL_S = 6  # a dead worker's work item is taken over soon, and a busy machine does not lose its claims


class FleetService:
    """The service in a process of its own. Leaving the block stops it.

    Args:
        folder: Where it is started, and where its log goes.
        environment: Its variables.
        port: The port on loopback; 0: any free one.

    Raises:
        Unavailable: It did not start.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], port: int) -> None:
        self._log = folder / "service.log"
        command = [
            sys.executable,
            "-c",
            "from everturn.cli import main; main()",
            "serve",
            "--json",
            "--port",
            str(port),
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            self.url = self._address()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The service's process id."""
        return self._process.pid

    def stop(self) -> None:
        """Stop it in good order; if that takes too long, kill it."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            kill_machine(self._process.pid)
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        """Make a request, and return what it is answered.

        Raises:
            Unavailable: The service cannot be reached, or refuses it.
        """
        request = urllib.request.Request(  # noqa: S310 (the address is ours)
            self.url + path, body, {"content-type": "application/json", **headers}, method="POST"
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=REQUEST_TIMEOUT_S) as response:
                answer: dict[str, Any] = json.load(response)
        except OSError as error:
            raise Unavailable(f"the demo's service refused {path}: {error}", hint="run the demo again") from error
        return answer

    def _address(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Unavailable(f"the demo's service did not start: {self._last_words()}", hint="run the demo again")
        address: str = json.loads(line)["address"]
        return address

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


@dataclass(frozen=True)
class Ground:
    """What the fleet stands on.

    Attributes:
        folder: Everything of the demo's.
        environment: The variables of its workers.
        model: The model that all agents talk to.
        service: The service.
        secret: What webhooks are signed with.
        admin_token: What admin requests bring.
        ids: Makes ids of webhooks.
    """

    folder: Path
    environment: dict[str, str]
    model: ScriptedModel
    service: FleetService
    secret: str
    admin_token: str
    ids: Ids

    def machine(self, worker: str) -> Path:
        """Return where a worker lives."""
        return self.folder / "workers" / worker

    def plan(self, part: Part, worker: str) -> Plan:
        """Return what a worker is to do in a part."""
        return Plan(
            agent=part.agent,
            repo=part.project.url,
            issue=str(part.number),
            prompt=part.prompt,
            resume_prompt=part.resume_prompt,
            receipts=str(self.folder / "receipts" / f"{worker}.jsonl"),
        )

    def merge(self, part: Part) -> None:
        """Tell the service, as a forge does, that a part's pull request was merged."""
        repository = _repository(part.project)
        head = {"ref": part.branch, "repo": repository}
        change = {"number": part.number, "merged": True, "head": head}
        self._tell("pull_request", {"action": "closed", "pull_request": change, "repository": repository})

    def close(self, part: Part) -> None:
        """Tell the service, as a forge does, that a part's issue was closed."""
        issue = {"number": part.number}
        self._tell("issues", {"action": "closed", "issue": issue, "repository": _repository(part.project)})

    def try_a_reset(self) -> None:
        """Ask the service, as an admin does, what a reset of everything would do."""
        body = json.dumps({"all": True, "dry_run": True}).encode()
        self.service.post("/admin/reset", body, {"authorization": f"Bearer {self.admin_token}"})

    def _tell(self, event: str, payload: dict[str, Any]) -> None:
        body = json.dumps(payload).encode()
        signature = hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {
            "x-github-event": event,
            "x-github-delivery": self.ids.session_id(),
            "x-hub-signature-256": f"sha256={signature}",
        }
        self.service.post("/webhooks/github", body, headers)


@contextlib.contextmanager
def set_up(port: int) -> Iterator[Ground]:
    """Set everything up, and stop and remove it all at the end.

    Args:
        port: The service's; 0: any free one.

    Raises:
        EverturnError: The service did not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="everturn-fleet-")).resolve()
    try:
        _make_forge(folder)
        ids = Ids()
        secret, admin_token = ids.session_id(), ids.session_id()
        settings = Settings.load(store=(folder / "store").as_uri(), registry=f"sqlite://{folder / 'registry.db'}")
        model = ScriptedModel(reply)
        with model.serve() as model_url:
            everyone = {
                **machine_environment(settings, model_url),
                "EVERTURN_STATE": str(folder / "state"),
                "EVERTURN_WORKDIRS": str(folder / "workdirs"),
                "EVERTURN_GIT_CONFIG_FILE": str(folder / "gitconfig"),
                "EVERTURN_CLAIM_TTL_S": str(CLAIM_TTL_S),
                "GIT_CONFIG_GLOBAL": str(folder / "gitconfig"),
            }
            service_only = {
                "HOME": str(folder / "service"),
                "TMPDIR": str(folder / "service"),
                "EVERTURN_WORKER": "service",
                "EVERTURN_WEBHOOK_SECRETS": json.dumps({"github": secret}),
                "EVERTURN_ADMIN_TOKEN": admin_token,
            }
            with FleetService(folder / "service", {**everyone, **service_only}, port) as service:
                yield Ground(folder, everyone, model, service, secret, admin_token, ids)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make_forge(folder: Path) -> None:
    """Make the repositories, and have git look for the forge here."""
    for name in ("service", "workers", "receipts"):
        (folder / name).mkdir()
    for project in PROJECTS:
        make_repository(folder / "forge" / project.name, project.files, project.name)
    (folder / "gitconfig").write_text(f'[url "{folder}/forge/"]\n\tinsteadOf = {FORGE}/\n', encoding="utf-8")


def _repository(project: Project) -> dict[str, Any]:
    return {"full_name": project.name, "clone_url": f"{project.url}.git", "html_url": project.url}
