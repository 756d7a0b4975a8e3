"""What `pip install everturn` brings: its licences, its known holes, and a list: `python -m release.contents`.

The list is a CycloneDX SBOM, `dist/everturn-VERSION.cdx.json`. Licences are looked at by an allow-list.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from release import DIST, ROOT
from release.build import built
from release.environments import distributions, install, newest

# Licences under which a program may be used, changed and passed on by anybody, in a product that is not open, too.
ALLOWED = {
    "0BSD", "Apache Software License", "Apache-2.0", "BSD License", "BSD-2-Clause", "BSD-3-Clause", "ISC",
    "ISC License (ISCL)", "MIT", "MIT License", "MIT-0", "PSF-2.0", "Python Software Foundation License", "Unlicense",
}  # fmt: skip
EXCEPTIONS = {
    "orjson": (
        "MPL-2.0 AND (Apache-2.0 OR MIT)",
        "the MPL covers its own files only; used unchanged, their source is all it asks for, and that can be had",
    ),
}


def main(arguments: list[str]) -> int:
    """Do what was asked for: `licences`, `sbom` or `audit`."""
    wheel, _ = built()
    inside = newest()
    install(inside, wheel)
    steps = {"licences": check_licences, "sbom": write_sbom, "audit": audit}
    return max([steps[name](inside) for name in arguments or ["licences", "sbom"]])


def licences(inside: Path) -> dict[str, str]:
    """Return the licence of each package that is installed, by its name."""
    command = [sys.executable, "-m", "piplicenses", "--python", str(inside), "--from=mixed", "--format=json"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {each["Name"]: each["License"] for each in found}


def refused(name: str, licence: str) -> bool:
    """Tell whether a licence is neither allowed nor an exception with a reason.

    Of alternatives one has to be allowed, of what holds together all. An expression with parentheses is an exception.
    """
    if name in EXCEPTIONS and EXCEPTIONS[name][0] == licence:
        return False
    together = re.split(r" AND |; ", licence)
    return not all(any(choice.strip() in ALLOWED for choice in each.split(" OR ")) for each in together)


def check_licences(inside: Path) -> int:
    """Say which licences are not allowed; 1 if there are any."""
    found = licences(inside)
    bad = {name: licence for name, licence in found.items() if refused(name, licence)}
    for name, licence in bad.items():
        print(f"{name} has the licence {licence!r}: allow it in release/contents.py, with a reason", file=sys.stderr)
    unused = sorted(set(EXCEPTIONS) - set(found))
    if unused:
        print(f"exceptions for what is not installed any more: {', '.join(unused)}", file=sys.stderr)
    print(f"licences: {len(found)} packages, {len(EXCEPTIONS)} by exception, {len(bad)} refused")
    return 1 if bad or unused else 0


def write_sbom(inside: Path) -> int:
    """Write the list of what is installed, and check that nothing is missing in it; 1 if something is."""
    version = distributions(inside)["everturn"]
    target = DIST / f"everturn-{version}.cdx.json"
    command = [
        sys.executable, "-m", "cyclonedx_py", "environment", str(inside), "--pyproject", str(ROOT / "pyproject.toml"),
        "--mc-type", "library", "--output-reproducible", "--output-file", str(target),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    components = json.loads(target.read_text())["components"]
    named = {re.sub(r"[-_.]+", "-", each["name"]).lower() for each in components} | {"everturn"}
    missing = sorted(set(distributions(inside)) - named)
    print(f"{target.name}: {len(components)} components{', without ' + ', '.join(missing) if missing else ''}")
    return 1 if missing else 0


def audit(inside: Path) -> int:
    """Say which packages have known vulnerabilities; 1 if any has. What could not be looked up is said, too.

    Without an answer there is nothing to say about the packages, good or bad: that is one sentence, and no failure.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        # By name and version, not by folder: `everturn` itself is no package of the index while it is being released.
        lines = [f"{name}=={version}\n" for name, version in distributions(inside).items() if name != "everturn"]
        wanted.write("".join(lines))
        wanted.flush()
        command = [
            sys.executable, "-m", "pip_audit", "--requirement", wanted.name, "--no-deps", "--disable-pip",
            "--format", "json", "--progress-spinner", "off", "--timeout", "10",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    code, told = verdict(done.stdout, len(lines))
    print(told)
    return code


def verdict(report: str, asked: int) -> tuple[int, str]:
    """Return an exit code and a sentence for what `pip-audit` reports; it calls what it does not find no failure.

    Args:
        report: Its JSON; anything else if nothing answered.
        asked: How many packages it was asked about.
    """
    try:
        packages = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return 0, "audit: nothing was checked, as no source of advisories answered; run it where one does"
    known = [each for each in packages if "skip_reason" not in each]
    holes = [f"{each['name']} {each['version']}: {hole['id']}" for each in known for hole in each["vulns"]]
    if not known:
        return 0, "audit: nothing was checked, as the source of advisories knows none of the packages"
    told = f"audit: {len(known)} of {asked} packages checked, {len(holes)} known vulnerabilities"
    return (1 if holes else 0), "\n".join([told, *holes])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
