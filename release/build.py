"""Build the sdist, and the wheel from it, and look into both: `python -m release.build`.

The wheel is made from the sdist, not from the tree, so that whoever builds from the sdist gets the same.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email.parser import BytesParser
from pathlib import Path

from packaging.metadata import Metadata

from release import DIST, ROOT

# What lies in folders of their own, and has to be installed with the code.
DATA = {"py.typed", ".html", ".css", ".js", ".svg"}
JUNK = ("__pycache__", "/cdk.out/", ".pyc", "/.venv", "/.tools", "/.git/", "/.env/", "/dist/", "/build/", "_cache/")
# The stack agrees with the code of its own release, so it is part of it (docs/aws.md).
STACK = {
    "infra/app.py",
    "infra/cdk.json",
    "infra/requirements.txt",
    "infra/settings.py",
    "infra/everturn_infra/stack.py",
}
PAGES = {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "constraints.txt", "PKG-INFO"}


class Unfit(Exception):
    """What was built is not fit to be released."""


def main() -> int:
    """Build and check; 1, and a line for each fault, if something is wrong."""
    wheel, sdist = build()
    faults = [*faults_of_wheel(wheel), *faults_of_sdist(sdist), *faults_of_metadata(wheel)]
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{wheel.name}: {wheel.stat().st_size // 1024} KB; {sdist.name}: {sdist.stat().st_size // 1024} KB")
    return 1 if faults else 0


def build() -> tuple[Path, Path]:
    """Build into `dist/`, and return the wheel and the sdist. What was there of other versions stays.

    Raises:
        Unfit: It could not be built.
    """
    command = [sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unfit(f"{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return built()


def built() -> tuple[Path, Path]:
    """Return the newest wheel and sdist in `dist/`.

    Raises:
        Unfit: There are none.
    """
    try:
        newest = (max(DIST.glob(pattern), key=lambda file: file.stat().st_mtime) for pattern in ("*.whl", "*.tar.gz"))
        wheel, sdist = newest
    except ValueError:
        raise Unfit("nothing is built yet: make release") from None
    return wheel, sdist


def source_files() -> set[str]:
    """Return the files of the package in the tree, as paths from `src`."""
    files = (file for file in (ROOT / "src" / "everturn").rglob("*") if file.is_file())
    return {str(file.relative_to(ROOT / "src")) for file in files if file.suffix != ".pyc"}


def faults_of_wheel(wheel: Path) -> list[str]:
    """Return what is missing in a wheel, and what should not be in it."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    info = {name for name in names if ".dist-info/" in name}
    faults = [f"{wheel.name} lacks {name}" for name in sorted(source_files() - names)]
    faults += [f"{wheel.name} has {name}" for name in sorted(names - info - source_files())]
    faults += [
        f"{wheel.name} has an unknown kind of file: {name}" for name in sorted(names - info) if not _known(name)
    ]
    if not any(name.endswith("/licenses/LICENSE") for name in info):
        faults.append(f"{wheel.name} lacks its licence")
    return faults


def _known(name: str) -> bool:
    path = Path(name)
    return path.suffix == ".py" or path.suffix in DATA or path.name in DATA


def faults_of_sdist(sdist: Path) -> list[str]:
    """Return what is missing in an sdist, and what should not be in it."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = PAGES | STACK | {f"src/{name}" for name in source_files()}
    faults = [f"{sdist.name} lacks {name}" for name in sorted(wanted - names)]
    return faults + [f"{sdist.name} has {name}" for name in sorted(names) if any(junk in f"/{name}" for junk in JUNK)]


def faults_of_metadata(wheel: Path) -> list[str]:
    """Return what an index would refuse, and what a reader would miss."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        raw = archive.read(name)
    try:
        metadata = Metadata.from_email(raw, validate=True)
    except ExceptionGroup as group:
        return [f"metadata: {error}" for error in group.exceptions]
    faults = []
    if metadata.description_content_type != "text/markdown" or not BytesParser().parsebytes(raw).get_payload():
        faults.append("metadata: the README is not the description")
    if metadata.license_expression != "Apache-2.0":
        faults.append("metadata: the licence is not told as an SPDX expression")
    if (
        f"## [{metadata.version}]" not in (changes := (ROOT / "CHANGELOG.md").read_text())
        and "[Unreleased]" not in changes
    ):
        faults.append(f"CHANGELOG.md says nothing about {metadata.version}")
    return faults


if __name__ == "__main__":
    sys.exit(main())
