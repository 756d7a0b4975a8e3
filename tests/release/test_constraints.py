"""What is installed for development can be installed with the oldest Python that the project takes."""

from __future__ import annotations

import tomllib
from importlib.metadata import distributions

from packaging.specifiers import SpecifierSet

from release import ROOT


def test_every_package_takes_the_first_release_of_the_oldest_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = project["requires-python"].removeprefix(">=") + ".0"
    asked = {found.name: SpecifierSet(found.metadata.get("Requires-Python", "")) for found in distributions()}
    assert len(asked) > 100
    assert not [f"{name} asks for {python}" for name, python in asked.items() if oldest not in python]
