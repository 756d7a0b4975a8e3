"""`everturn doctor` as a person or a program calls it, on machines that are well and on some that are not."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli.conftest import TIMEOUT_S, Everturn
from disks import may_mount, obeying_permissions
from everturn.checks.findings import failed, passed, warned
from everturn.cli.doctor import report
from everturn.log.objects import run
from everturn.log.stores import admit, connect
from everturn.model import Holder, WorkItem
from everturn.registry import open_registry
from everturn.settings import Settings
from everturn.testing import cli_environment
from polling import wait_until

DOCS = Path(__file__).parents[2] / "docs"
EVERTURN = str(Path(sys.executable).with_name("everturn"))
# Whoever may not mount is let by most systems, in a namespace of their own.
NAMESPACE = ["unshare", "--mount"] if may_mount() else ["unshare", "--user", "--map-root-user", "--mount"]


def has_namespaces() -> bool:
    try:
        return subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


mounts = pytest.mark.skipif(not may_mount() and not has_namespaces(), reason="nothing may be mounted here")


class Doctor:
    """The command, and what it says."""

    def __init__(self, everturn: Everturn) -> None:
        self.everturn = everturn
        self.summary: dict[str, int] = {}

    def __call__(self, *arguments: str | Path, code: int = 0) -> dict[str, dict[str, Any]]:
        """Run it, check its exit code, and return its findings by name, the worst of those with one name."""
        return self._read(self.everturn("doctor", "--json", *arguments), code)

    def among(self, mount: str, *arguments: str | Path, code: int = 0) -> dict[str, dict[str, Any]]:
        """The same with mounts of its own, which go with it."""
        command = shlex.join([EVERTURN, "doctor", "--json", *map(str, arguments)])
        return self._read(self._run([*NAMESPACE, "sh", "-ec", f"{mount}\nexec {command}"]), code)

    def without_privileges(self, *arguments: str | Path, code: int = 0) -> dict[str, dict[str, Any]]:
        """The same as somebody who is held to the rights of files, even if root runs the tests."""
        return self._read(self._run([*obeying_permissions(), EVERTURN, "doctor", "--json", *arguments]), code)

    def _run(self, command: list[str | Path]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.everturn.desk,
            env={
                **cli_environment("http://127.0.0.1:1", self.everturn.home, tmpdir=self.everturn.tmp),
                "EVERTURN_STATE": str(self.everturn.state),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )

    def _read(self, done: subprocess.CompletedProcess[str], code: int) -> dict[str, dict[str, Any]]:
        assert done.returncode == code, done.stdout + done.stderr
        sys.stdout.write(done.stdout)  # for whoever reads why a test has failed
        told = json.loads(done.stdout)
        self.summary = told["summary"]
        ranked = sorted(told["checks"], key=lambda each: ("pass", "warn", "fail").index(each["status"]))
        return {each["name"]: each for each in ranked}


@pytest.fixture
def doctor(everturn: Everturn) -> Doctor:
    return Doctor(everturn)


def wrong(findings: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: each["status"] for name, each in findings.items() if each["status"] != "pass"}


# --- machines that are well ---


@pytest.mark.slow
@pytest.mark.cli
def test_a_new_machine_is_well_and_nothing_is_left_on_it(doctor: Doctor) -> None:
    findings = doctor()
    assert wrong(findings) == {}
    assert doctor.summary == {"passed": len(findings), "warned": 0, "failed": 0}
    assert all(each.keys() == {"name", "status", "message", "mend", "seconds"} for each in findings.values())
    assert not doctor.everturn.state.exists()
    assert doctor.everturn.files() == {}


@pytest.mark.slow
@pytest.mark.cli
def test_a_machine_in_use_stays_as_it_is(doctor: Doctor) -> None:
    state = doctor.everturn.state
    settings = Settings.load(state=state)
    run(admit(connect(settings.store_url(), settings), "scope", "store"))
    open_registry(settings.registry_url()).claim(WorkItem.task("tap"), Holder("worker"), ttl_s=30)
    before = sorted(state.rglob("*")), doctor.everturn.files()
    assert wrong(doctor("--scope", "scope")) == {}
    assert (sorted(state.rglob("*")), doctor.everturn.files()) == before


@pytest.mark.slow
@pytest.mark.cli
def test_every_finding_is_documented(doctor: Doctor) -> None:
    rows = set(re.findall(r"^\| `([a-z_.]+)` \|", (DOCS / "doctor.md").read_text(), re.MULTILINE))
    assert doctor().keys() <= rows
    source = "".join(path.read_text() for path in (DOCS.parent / "src/everturn/checks").glob("*.py"))
    names = set(re.findall(r'"((?:programs|machine|settings|store|registry)\.[a-z_]+)"', source))
    kinds = set(re.findall(r'f"\{name\}\.([a-z]+)"', source))
    names.remove("registry.db")  # a file
    assert rows == names | {f"{group}.{kind}" for group in ("state", "workdirs") for kind in kinds}


# --- machines that are not ---


@pytest.mark.slow
@pytest.mark.cli
@pytest.mark.parametrize("kind", ["a variable", "the file of agents"])
def test_settings_that_are_wrong_do_not_stop_the_other_checks(doctor: Doctor, kind: str) -> None:
    if kind == "a variable":
        doctor.everturn.variables["EVERTURN_CLAIM_TTL_S"] = "soon"
    else:
        (doctor.everturn.desk / "agents.json").write_text('{"reviewer": {"max_session_age_ms": -1}}')
    findings = doctor(code=2)
    assert wrong(findings) == {"settings.load": "fail"}
    assert ("claim_ttl_s" if kind == "a variable" else "agents.json") in findings["settings.load"]["message"]
    assert {"programs.git", "machine.clock"} < findings.keys()
    assert not [name for name in findings if name.startswith(("store.", "registry."))]


@pytest.mark.slow
@pytest.mark.cli
def test_what_fails_is_told_with_its_mend_and_warnings_are_no_failures(doctor: Doctor) -> None:
    doctor.everturn.variables["ANTHROPIC_API_KEY"] = ""
    findings = doctor()
    assert wrong(findings) == {"programs.login": "warn"}
    assert doctor.summary["warned"] == 1
    done = doctor.everturn("doctor", "--registry", "postgres://me:secret@host/db")
    assert done.returncode == 2
    assert "✗" in done.stdout
    assert "→ use sqlite:///absolute/path.db" in done.stdout
    assert "1 warning, 1 failed" in done.stdout
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.cli
def test_a_machine_without_git_fails(doctor: Doctor) -> None:
    doctor.everturn.variables["PATH"] = str(doctor.everturn.desk)
    findings = doctor(code=2)
    assert wrong(findings) == {"programs.git": "fail"}
    assert "install git" in findings["programs.git"]["mend"]


@pytest.mark.slow
@pytest.mark.cli
@mounts
def test_a_store_that_is_mounted_read_only_fails(doctor: Doctor) -> None:
    store = doctor.everturn.folder / "store"
    store.mkdir()
    place = shlex.quote(str(store))
    findings = doctor.among(
        f"mount --bind {place} {place}; mount -o remount,bind,ro {place}", "--store", store.as_uri(), code=2
    )
    assert wrong(findings) == {"store.write": "fail"}
    assert "read-only" in findings["store.write"]["mend"]
    assert list(store.iterdir()) == []


@pytest.mark.slow
@pytest.mark.cli
def test_folders_that_this_user_may_not_write_to_fail(doctor: Doctor) -> None:
    place = doctor.everturn.folder / "place"
    place.mkdir(mode=0o500)
    url = f"sqlite://{place / 'registry.db'}"
    findings = doctor.without_privileges("--store", place.as_uri(), "--registry", url, code=2)
    assert wrong(findings) == {"store.write": "fail", "registry.open": "fail"}
    for name in ("store.write", "registry.open"):
        assert "give this user the right to write there" in findings[name]["mend"]


@pytest.mark.slow
@pytest.mark.cli
@mounts
def test_a_state_folder_that_is_full_fails_and_so_does_what_lies_in_it(doctor: Doctor) -> None:
    doctor.everturn.state.mkdir()
    place = shlex.quote(str(doctor.everturn.state))
    fill = f"mount -t tmpfs -o size=64k tmpfs {place}; head -c 65536 /dev/zero > {place}/filler || true"
    findings = doctor.among(fill, code=2)
    failures = wrong(findings)
    for name in ("state.space", "workdirs.space", "store.space", "registry.space"):
        assert failures[name] == "fail"
    assert "free some room" in findings["state.space"]["mend"]
    assert "programs.git" not in failures


@pytest.mark.slow
@pytest.mark.cli
@mounts
def test_a_state_folder_that_no_program_can_be_started_from_fails(doctor: Doctor) -> None:
    doctor.everturn.state.mkdir()
    place = shlex.quote(str(doctor.everturn.state))
    findings = doctor.among(f"mount -t tmpfs -o noexec,size=2g tmpfs {place}", code=2)
    assert wrong(findings) == {"state.programs": "fail", "workdirs.programs": "warn"}
    assert "noexec" in findings["state.programs"]["message"]


@pytest.mark.slow
@pytest.mark.cli
@mounts
def test_a_registry_in_a_place_that_is_mounted_read_only_fails(doctor: Doctor) -> None:
    folder = doctor.everturn.folder / "fleet"
    url = f"sqlite://{folder / 'registry.db'}"
    open_registry(url).claim(WorkItem.task("tap"), Holder("worker"), ttl_s=30)
    place = shlex.quote(str(folder))
    findings = doctor.among(
        f"mount --bind {place} {place}; mount -o remount,bind,ro {place}", "--registry", url, code=2
    )
    assert wrong(findings) == {"registry.open": "fail"}
    assert "writ" in findings["registry.open"]["mend"]


@pytest.mark.slow
@pytest.mark.cli
def test_whoever_stops_it_is_told_and_nothing_is_left(doctor: Doctor) -> None:
    machine = doctor.everturn
    slow = machine.desk / "git"
    slow.write_text(f"#!/bin/sh\ntouch {shlex.quote(str(machine.desk))}/asked\nsleep 60\n")
    slow.chmod(0o755)
    machine.variables["PATH"] = f"{machine.desk}:/usr/bin:/bin"
    with machine.start("doctor") as process:
        wait_until((machine.desk / "asked").exists, "the question to git")
        process.send_signal(signal.SIGTERM)
        output, complaint = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert "interrupted" in complaint
    assert output == ""
    assert not machine.state.exists()
    assert machine.processes() == []


# --- how it looks ---


def test_a_report_has_a_mark_for_each_line_and_the_mend_under_it() -> None:
    console = Console(file=StringIO(), width=70, color_system=None)
    console.print(
        report(
            [
                passed("store.reachable", "s3://bucket answers"),
                warned("store.clock", "the clocks are 9 s apart \x1b[31m[bold]", "keep it right"),
                failed("registry.open", "it is damaged " * 8, "restore it"),
            ]
        )
    )
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [line.rstrip() for line in shown.splitlines()]
    assert lines[0] == "store"
    assert "✓" in lines[1]
    assert "!" in lines[2]
    assert "[bold]" in lines[2]
    assert lines[3].strip() == "→ keep it right"
    assert lines[-1] == "✗ 1 passed, 1 warning, 1 failed"
    assert "\x1b" not in shown
    assert all(len(line) <= 70 for line in lines)
