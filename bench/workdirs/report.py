"""The tables and plots of a run."""

from __future__ import annotations

from pathlib import Path

from bench.plan import Row
from bench.report import MB, Table, goals_table, in_ms, run_on
from bench.svg import amount, bars
from bench.workdirs.plan import AGAIN, AT_ONCE, MAIN_WAYS, OTHER_WAYS
from bench.workdirs.summary import Summary

BEGIN, END = "<!-- begin of measured tables: workdirs -->", "<!-- end of measured tables: workdirs -->"
GB = 1e9
LABELS = {
    "clones": "clones",
    "linked": "linked worktrees",
    "workdirs": "workdirs",
    "sparse": "workdirs, sparse",
    "parallel": "clones with `checkout.workers=0`",
    "shallow": "clones with `--depth=1`",
    "local": "clones with hard links",
}
SITUATIONS = {
    "kept": "its conversation goes on",
    "same": "another conversation, nothing new at the remote",
    "newer": "another conversation, a commit more at the remote",
    "unsaved": "another conversation, unsaved work is set aside",
}


def tables(results: Row) -> list[Table]:
    """Return all tables."""
    found = Summary(results)
    measured = [_all_of_them(found), _others(found), _again(found), _at_once(found), _eviction(found)]
    return [goals_table(found.goals()), *measured]


def _all_of_them(found: Summary) -> Table:
    rows = []
    for way in MAIN_WAYS:
        name = f"open {way}"
        first, *later = found.times(name)
        seconds = (found.total(name), found.total(name, "cpu_s"), first, sum(later) / len(later))
        ratios = (found.times_faster(way), found.times_faster_later(way))
        rows.append(
            (
                LABELS[way],
                *map(amount, seconds),
                amount(_room(found, way) / GB),
                *(f"{ratio:.1f}" for ratio in ratios),
            )
        )
    title = f"{found.results['sizes']['agents']} agents, one after the other"
    head = ("", "time, s", "CPU, s", "the first, s", "each of the others, s", "disk, GB", "times as fast as clones")
    return Table(title, (*head, "without the first"), rows)


def _others(found: Summary) -> Table:
    rows = []
    for way in (*MAIN_WAYS, *OTHER_WAYS):
        name, few = f"open {way}", found.results["sizes"]["few"]
        cpu_s = sum(row["cpu_s"] for row in found.samples[name][:few]) / few
        rows.append((LABELS[way], amount(sum(found.times(name)[:few]) / few), amount(cpu_s)))
    return Table(
        f"One of them: the mean of the first {found.results['sizes']['few']}", ("", "time, s", "CPU, s"), rows
    )


def _room(found: Summary, way: str) -> float:
    return found.total(f"room {way}", "bytes")


def _again(found: Summary) -> Table:
    rows = []
    for name in AGAIN:
        samples = found.samples[f"again {name}"]
        cpu_ms = 1000 * found.total(f"again {name}", "cpu_s") / len(samples)
        high_ms = 1000 * found.high(f"again {name}")
        rows.append(
            (
                SITUATIONS[name],
                f"{len(samples)}",
                in_ms(found.spread(f"again {name}")),
                amount(high_ms),
                amount(cpu_ms),
            )
        )
    return Table("A workdir again", ("", "times", "p50, ms", "p99, ms", "CPU, ms"), rows)


def _at_once(found: Summary) -> Table:
    rows = []
    for way in AT_ONCE:
        for state in ("cold", "warm") if way != "clones" else ("cold",):
            samples = found.samples[f"at once {way} {state}"]
            waits = sorted(latency for row in samples for latency in row["latencies_s"])
            mean = [found.total(f"at once {way} {state}", figure) / len(samples) for figure in ("wall_s", "cpu_s")]
            cache = "" if way == "clones" else {"cold": "has to be made", "warm": "is there"}[state]
            rows.append((LABELS[way], cache, amount(waits[0]), *map(amount, mean)))
    title = f"{found.results['sizes']['at_once']} agents at once"
    return Table(title, ("", "the cache", "the fastest, s", "all of them, s", "CPU, s"), rows)


def _eviction(found: Summary) -> Table:
    row, agents = found.evicted, found.results["sizes"]["agents"]
    sizes = (row[f"{name}_bytes"] / GB for name in ("before", "quota", "after"))
    counts = (f"{row[name]}" for name in ("shrunk", "removed", "precious"))
    per_gb = row["wall_s"] / ((row["before_bytes"] - row["after_bytes"]) / GB)
    head = ("before, GB", "quota, GB", "after, GB", "shrunk", "removed", "untouched", "time, s", "s for each GB")
    times = (amount(row["wall_s"]), amount(per_gb), amount(row["measured_s"]))
    return Table(
        f"Eviction among {agents} workdirs", (*head, "measuring, s"), [(*map(amount, sizes), *counts, *times)]
    )


def plots(results: Row, folder: Path, name: str) -> None:
    """Write all plots of a run."""
    found = Summary(results)
    agents = found.results["sizes"]["agents"]
    ways = {way: LABELS[way] for way in MAIN_WAYS}
    time = {
        text: {label: found.total(f"open {way}", figure) for way, label in ways.items()}
        for figure, text in (("wall_s", "time"), ("cpu_s", "CPU"))
    }
    disk = {"disk": {label: _room(found, way) / MB for way, label in ways.items()}}
    short = {"kept": "goes on", "same": "nothing new", "newer": "a commit more", "unsaved": "unsaved work"}
    again = {
        text: {
            "p50": 1000 * found.spread(f"again {situation}").median,
            "p99": 1000 * found.high(f"again {situation}"),
        }
        for situation, text in short.items()
    }
    for what, text in (
        ("time", bars(f"A place to work in for {agents} agents", "s", time)),
        ("disk", bars(f"What the places of {agents} agents take", "MB", disk)),
        ("again", bars("Opening a workdir again", "ms", again)),
    ):
        (folder / f"{name}-{what}.svg").write_text(text, encoding="utf-8")


def circumstances(results: Row) -> str:
    """Say when and with what a run was made."""
    (made,) = results["samples"]["repository"]
    shape = results["sizes"]["shape"]
    files = f"{made['files']:,} files of together {made['tree_bytes'] / MB:.0f} MB"
    stored = f"{shape['commits'] + 1} commits, packed {made['stored_bytes'] / MB:.0f} MB"
    return f"{run_on(results)}, {results['git']}. The repository: {files}, {stored}."
