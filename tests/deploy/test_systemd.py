"""The systemd unit: systemd's own tools check it, and it fits the settings."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from everturn.settings import Settings

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNIT = FOLDER / "everturn.service"
MARGIN_S = 5.0  # what the service may take beyond the grace period of its runs
EXPOSURE_LIMIT = 20  # tenths; systemd calls up to 2.0 "OK", and a unit without any of this has 9.6
TIMEOUT_S = 60.0


def analyze(*arguments: str | Path) -> tuple[int, str]:
    """Run systemd's tool, and return its exit code and what it said."""
    found = shutil.which("systemd-analyze")
    assert found, "systemd-analyze is missing; on Debian: apt-get install systemd"
    done = subprocess.run(
        [found, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def service() -> configparser.SectionProxy:
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read(UNIT, encoding="utf-8")
    return parsed["Service"]


@pytest.fixture
def unit(service: configparser.SectionProxy, tmp_path: Path) -> Path:
    """The unit, with a program that is on this machine: the tool looks for it."""
    copy = tmp_path / UNIT.name
    program = service["ExecStart"].split()[0]
    copy.write_text(UNIT.read_text(encoding="utf-8").replace(program, "/bin/true"), encoding="utf-8")
    return copy


def test_systemd_understands_every_line(unit: Path) -> None:
    assert analyze("verify", "--man=no", unit) == (0, "")


def test_systemd_finds_a_line_that_is_wrong(unit: Path) -> None:
    unit.write_text(unit.read_text(encoding="utf-8").replace("KillMode=mixed", "KillMode=gently"), encoding="utf-8")
    assert "gently" in analyze("verify", "--man=no", unit)[1]


def test_it_may_do_little(unit: Path) -> None:
    code, said = analyze("security", "--offline=true", f"--threshold={EXPOSURE_LIMIT}", "--no-pager", unit)
    assert code == 0, said


def test_it_has_the_time_that_it_needs_to_stop(service: configparser.SectionProxy) -> None:
    assert (service["KillSignal"], service["KillMode"]) == ("SIGTERM", "mixed")
    assert float(service["TimeoutStopSec"]) >= Settings.model_fields["shutdown_grace_s"].default + MARGIN_S


def test_it_writes_to_its_state_alone(service: configparser.SectionProxy) -> None:
    folder = f"/var/lib/{service['StateDirectory']}"
    assert service["ProtectSystem"] == "strict"
    assert "ReadWritePaths" not in service
    environment = dict(pair.split("=") for pair in service["Environment"].split())
    assert environment == {"HOME": folder, "EVERTURN_STATE": folder}
    assert service["WorkingDirectory"] == folder


def test_the_example_of_its_settings_has_settings_and_no_values() -> None:
    text = (FOLDER / "everturn.env.example").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    names = {re.fullmatch(r"EVERTURN_([A-Z_]+)=", line)[1].lower() for line in lines}  # type: ignore[index]
    assert names <= set(Settings.model_fields)
    assert {"webhook_secrets", "read_token", "admin_token"} <= names
