"""Run the benchmark: Everturn, the baseline and the physical limit in turns, on one S3 server.

    python -m bench.run [--quick] [--dispatches] [--show] [--engine ministack|moto] [--server-python PYTHON]

Writes `bench/results/<size>.json`, plots beside it and, for a full run, the tables in `docs/performance.md`.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import plots, report
from bench.plan import FULL, QUICK, Plan, Sizes
from bench.progress import run_all
from bench.server import ENGINES
from bench.servers import ROOT, serve

RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs" / "performance.md"
PACKAGES = ("boto3", "claude-agent-sdk", "obstore", "orjson", "backports.zstd")


def measure(sizes: Sizes, engine: str, server_python: str, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run everything and return what was measured.

    Args:
        sizes: How much.
        engine: The S3 server.
        server_python: The Python that has it installed.
        before: An earlier run, of which only the dispatches are measured anew.
    """
    started = time.time()
    with serve(engine, server_python) as server:
        plan = Plan(server, sizes)
        if before is not None:
            server.make_bucket("everturn")
        run_all(list(plan.steps() if before is None else plan.dispatches()))
    if before is not None:
        return {**before, "sizes": sizes.as_row(), "samples": {**before["samples"], **plan.samples}}
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime(started)),
        "seconds": round(time.time() - started),
        "engine": engine,
        **machine(),
        "packages": {name: version(name) for name in PACKAGES},
        "sizes": sizes.as_row(),
        "samples": plan.samples,
    }


def machine() -> dict[str, Any]:
    """Return what a run is made on."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": _processors(),
    }


def _processors() -> int:
    import os  # noqa: PLC0415

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    """Run, write, tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, a good minute; for a look only")
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0])
    parser.add_argument("--server-python", default=sys.executable, help="the Python that has the server installed")
    parser.add_argument("--dispatches", action="store_true", help="measure only dispatches; keep the rest as it was")
    parser.add_argument("--show", action="store_true", help="measure nothing: make tables and plots of the last run")
    given = parser.parse_args()
    name = "quick" if given.quick else "full"
    file = RESULTS / f"{name}.json"
    if not given.show:
        before = json.loads(file.read_text(encoding="utf-8")) if given.dispatches else None
        results = measure(QUICK if given.quick else FULL, given.engine, given.server_python, before)
        RESULTS.mkdir(exist_ok=True)
        file.write_text(json.dumps(report.thinned(results), indent=1) + "\n", encoding="utf-8")
    results = json.loads(file.read_text(encoding="utf-8"))
    plots.write(results, RESULTS, name)
    tables = report.tables(results)
    if not given.quick:
        report.put_into(PAGE, tables, report.circumstances(results))
    print(report.as_text(tables))


if __name__ == "__main__":
    main()
