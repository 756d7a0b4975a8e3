"""Run the benchmark of the journal, of what is rebuilt from it, and of searching.

    python -m bench.journal [--quick] [--show] [--folder FOLDER] [--engine ministack|moto] [--server-python PYTHON]

Writes `bench/results/journal.json`, plots beside it and, for a full run, the tables in `docs/performance.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from bench.journal import report
from bench.journal.plan import FULL, QUICK, Plan, Sizes
from bench.plan import Row
from bench.progress import run_all
from bench.report import as_text, put_into
from bench.run import PAGE, RESULTS, machine
from bench.server import ENGINES
from bench.servers import serve

BUCKET = "journals"


def measure(sizes: Sizes, folder: Path, engine: str, server_python: str) -> Row:
    """Run everything and return what was measured.

    Args:
        sizes: How much.
        folder: Where everything happens; empty.
        engine: The S3 server.
        server_python: The Python that has it installed.
    """
    started = time.time()
    with serve(engine, server_python) as server:
        os.environ.update(server.environment)
        server.make_bucket(BUCKET)
        plan = Plan(folder, f"s3://{BUCKET}/everturn", BUCKET, sizes)
        run_all(list(plan.steps()))
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime(started)),
        "seconds": round(time.time() - started),
        "engine": engine,
        **machine(),
        "sqlite": sqlite3.sqlite_version,
        "sizes": sizes.as_row(),
        "samples": dict(plan.samples),
    }


def main() -> None:
    """Run, write, tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, for a look only")
    parser.add_argument("--show", action="store_true", help="measure nothing: make tables and plots of the last run")
    parser.add_argument("--folder", type=Path, help="where to work; default: the system's folder for temporary files")
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0])
    parser.add_argument("--server-python", default=sys.executable, help="the Python that has the server installed")
    given = parser.parse_args()
    name = "journal-quick" if given.quick else "journal"
    file = RESULTS / f"{name}.json"
    if not given.show:
        with tempfile.TemporaryDirectory(prefix="everturn-bench-", dir=given.folder) as folder:
            results = measure(QUICK if given.quick else FULL, Path(folder), given.engine, given.server_python)
            file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    results = json.loads(file.read_text(encoding="utf-8"))
    report.plots(results, RESULTS, name)
    tables = report.tables(results)
    if not given.quick:
        put_into(PAGE, tables, report.circumstances(results), report.BEGIN, report.END)
    print(as_text(tables))


if __name__ == "__main__":
    main()
