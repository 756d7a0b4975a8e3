"""The checks of a release find what they are there to find."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from release.build import PAGES, STACK, faults_of_sdist, faults_of_wheel, source_files
from release.contents import refused, verdict


@pytest.mark.parametrize(
    "licence", ["MIT", "Apache-2.0 OR BSD-3-Clause", "GPL-3.0 OR MIT", "MIT License; BSD License"]
)
def test_licences_that_may_be_passed_on_are_allowed(licence: str) -> None:
    assert not refused("some", licence)


@pytest.mark.parametrize("licence", ["GPL-3.0", "MIT AND GPL-3.0", "UNKNOWN", "MIT AND (MPL-2.0 OR GPL-3.0)", ""])
def test_other_licences_are_refused(licence: str) -> None:
    assert refused("some", licence)


def test_an_exception_holds_for_one_package_with_one_licence() -> None:
    licence = "MPL-2.0 AND (Apache-2.0 OR MIT)"
    assert [refused("orjson", licence), refused("other", licence), refused("orjson", "MPL-2.0")] == [
        False,
        True,
        True,
    ]


def test_an_audit_that_could_ask_nobody_claims_nothing() -> None:
    skipped = json.dumps({"dependencies": [{"name": "a", "skip_reason": "not found"}]})
    for report in ("", "no json", "{}", skipped):
        code, told = verdict(report, 1)
        assert code == 0
        assert "nothing was checked" in told


def test_an_audit_fails_for_a_known_hole_and_names_it() -> None:
    packages = [{"name": "a", "version": "1", "vulns": [{"id": "X-1"}]}, {"name": "b", "version": "2", "vulns": []}]
    code, told = verdict(json.dumps({"dependencies": packages}), 3)
    assert code == 1
    assert told == "audit: 2 of 3 packages checked, 1 known vulnerabilities\na 1: X-1"


def test_a_wheel_without_a_page_or_with_junk_is_found(tmp_path: Path) -> None:
    wheel = tmp_path / "everturn-0-py3-none-any.whl"
    gone = "everturn/py.typed"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in (source_files() - {gone}) | {"tests/test_it.py", "everturn-0.dist-info/licenses/LICENSE"}:
            archive.writestr(name, "")
    assert faults_of_wheel(wheel) == [f"{wheel.name} lacks {gone}", f"{wheel.name} has tests/test_it.py"]


def test_an_sdist_without_the_stack_or_with_its_output_is_found(tmp_path: Path) -> None:
    sdist = tmp_path / "everturn-0.tar.gz"
    names = (PAGES | STACK | {f"src/{name}" for name in source_files()}) - {"infra/app.py"}
    with tarfile.open(sdist, "w:gz") as archive:
        for name in names | {"infra/cdk.out/everturn.template.json"}:
            archive.addfile(tarfile.TarInfo(f"everturn-0/{name}"))
    assert faults_of_sdist(sdist) == [
        f"{sdist.name} lacks infra/app.py",
        f"{sdist.name} has infra/cdk.out/everturn.template.json",
    ]
