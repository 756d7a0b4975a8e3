"""Simulate, and write docs/scale.md: `python -m bench.scale`."""

from __future__ import annotations

import json
from pathlib import Path

from bench.scale import report
from bench.scale.fleet import SIZES, Fleet
from bench.scale.run import quiet, results
from bench.scale.spread import spread

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench/results/scale.json"
PAGE = ROOT / "docs/scale.md"


def main() -> None:
    """Do it."""
    quiet()
    print("Simulating; some minutes ...", flush=True)
    found = results()
    found["spread"] = spread(SIZES[-1], Fleet(found).ranges(SIZES[-1]))
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    report.write(found, PAGE, RESULTS.parent)
    print(f"{PAGE.relative_to(ROOT)} and {RESULTS.relative_to(ROOT)} are written")


if __name__ == "__main__":
    main()
