"""Run the benchmark of workdirs: Everturn's, clones and linked worktrees, in turns.

    python -m bench.workdirs [--quick] [--show] [--folder FOLDER]

Writes `bench/results/workdirs.json`, plots beside it and, for a full run, the tables in `docs/performance.md`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from bench.plan import Row
from bench.progress import run_all
from bench.report import as_text, put_into
from bench.run import PAGE, RESULTS, machine
from bench.workdirs import report
from bench.workdirs.plan import FULL, QUICK, Plan, Sizes
from bench.workdirs.repository import run


def measure(sizes: Sizes, folder: Path) -> Row:
    """Run everything and return what was measured.

    Args:
        sizes: How much.
        folder: Where everything happens; empty.
    """
    started = time.time()
    plan = Plan(folder, sizes)
    run_all(list(plan.steps()))
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime(started)),
        "seconds": round(time.time() - started),
        **machine(),
        "git": run(["version"], folder).replace("version ", ""),
        "sizes": sizes.as_row(),
        "samples": dict(plan.samples),
    }


def main() -> None:
    """Run, write, tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, for a look only")
    parser.add_argument("--show", action="store_true", help="measure nothing: make tables and plots of the last run")
    parser.add_argument("--folder", type=Path, help="where to work; default: the system's folder for temporary files")
    given = parser.parse_args()
    name = "workdirs-quick" if given.quick else "workdirs"
    file = RESULTS / f"{name}.json"
    if not given.show:
        with tempfile.TemporaryDirectory(prefix="everturn-bench-", dir=given.folder) as folder:
            results = measure(QUICK if given.quick else FULL, Path(folder))
            file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    results = json.loads(file.read_text(encoding="utf-8"))
    report.plots(results, RESULTS, name)
    tables = report.tables(results)
    if not given.quick:
        put_into(PAGE, tables, report.circumstances(results), report.BEGIN, report.END)
    print(as_text(tables))


if __name__ == "__main__":
    main()
