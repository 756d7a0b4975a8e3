"""A process that folds runs into a mirror, one after the other, some lines at a time."""

from __future__ import annotations

import sys
from pathlib import Path

from mirrors.shelves import fold_all, long_runs, mirror_at


def main(folder: str, name: str, count: str, turns: str) -> None:
    mirror = mirror_at(Path(folder))
    for run, events in long_runs(name, int(count), int(turns)).items():
        fold_all(mirror, {run: events}, 1 + int(turns))
    mirror.close()


main(*sys.argv[1:])
