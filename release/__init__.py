"""What a release is built and checked with (docs/releasing.md). Nothing of it is installed with Everturn."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
ENVIRONMENTS = ROOT / ".venv-release"
