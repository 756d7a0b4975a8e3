"""The tables and plots of docs/scale.md."""

from __future__ import annotations

from math import ceil
from pathlib import Path

from bench.report import MB, Table, put_into
from bench.scale.agent import PURPOSES
from bench.scale.fleet import (
    EXPRESS,
    EXPRESS_WRITES,
    KMS_PRICE,
    PARTITION_WRITES,
    PREFIX_READS,
    PREFIX_WRITES,
    READ_UNITS_PRICE,
    SIZES,
    STANDARD,
    Fleet,
)
from bench.scale.run import Row
from bench.svg import amount, bars, lines

BEGIN, END = "<!-- begin of simulated tables -->", "<!-- end of simulated tables -->"
KINDS = ("PUT", "LIST", "GET", "DELETE")
MONTH_H = 720
FOLDERS = ("sessions", "journal", "traces")


def tables(results: Row) -> list[Table]:
    """Return all tables."""
    fleet = Fleet(results)
    return [
        _hour(fleet),
        _purposes(fleet),
        _rates(fleet),
        _dollars(fleet),
        _prefixes(fleet),
        _spread(fleet, results["spread"]),
        _registry(fleet),
        _limits(fleet),
    ]


def note(results: Row) -> str:
    """Say what was simulated."""
    agents = len(results["scenarios"]["eager"])
    frames = sum(row["frames"] for row in results["scenarios"]["eager"])
    hours = results["seconds"] / 3600
    return (
        f"Simulated: {agents} agents for {hours:g} hour each, in {results['runs']} runs, with {frames:,} appends "
        "of the SDK in all; the same with each of the settings."
    )


def write(results: Row, page: Path, pictures: Path) -> None:
    """Write the tables into the page, and the plots."""
    put_into(page, tables(results), note(results), BEGIN, END)
    for name, text in plots(results).items():
        (pictures / f"scale-{name}.svg").write_text(text, encoding="utf-8")


def plots(results: Row) -> dict[str, str]:
    """Return the plots."""
    fleet = Fleet(results)
    writes = {
        name: {float(size): agent.busiest("writes", size) for size in SIZES} for name, agent in fleet.agents.items()
    }
    writes["one S3 prefix"] = {float(size): float(PREFIX_WRITES) for size in SIZES}
    writes["directory bucket"] = {float(size): float(EXPRESS_WRITES) for size in SIZES}
    dollars = {
        name: {prices.name: 1000 * agent.dollars(prices) for prices in (STANDARD, EXPRESS)}
        for name, agent in fleet.agents.items()
    }
    return {
        "writes": lines("Writes in a busy second", "agents at work", "a second", writes),
        "dollars": bars("An hour of 1,000 agents, kept for 30 days", "$", dollars),
    }


def _hour(fleet: Fleet) -> Table:
    rows = []
    for name, agent in fleet.agents.items():
        counts = (f"{agent.requests(kind):,.0f}" for kind in KINDS)
        sizes = (amount(agent.figure(each) / MB) for each in ("sent_bytes", "fetched_bytes"))
        kept = (amount(agent.kept_bytes(folder) / MB) for folder in FOLDERS)
        rows.append((name, *counts, *sizes, *kept))
    head = ("", *(f"{kind}s" for kind in KINDS), "MB sent", "MB fetched", *(f"MB kept in `{f}/`" for f in FOLDERS))
    return Table("An hour of one agent: S3", head, rows)


def _purposes(fleet: Fleet) -> Table:
    rows = [
        (name, purpose, *(f"{agent.for_purpose(purpose, kind):,.0f}" for kind in KINDS))
        for name, agent in fleet.agents.items()
        for purpose in PURPOSES
    ]
    return Table("What its requests are for", ("", "for", *(f"{kind}s" for kind in KINDS)), rows)


def _rates(fleet: Fleet) -> Table:
    rows = []
    for size in SIZES:
        for name, agent in fleet.agents.items():
            means = (amount(size * agent.requests(kind) / 3600) for kind in KINDS)
            busy = (amount(agent.busiest(kind, size)) for kind in ("writes", "reads"))
            sent = amount(size * agent.figure("sent_bytes") / 3600 / MB)
            rows.append((f"{size:,}", name, *means, *busy, sent))
    head = ("agents", "", *(f"{kind}s/s" for kind in KINDS), "writes, busy second", "reads, busy second", "MB/s sent")
    return Table("Fleets: requests a second", head, rows)


def _dollars(fleet: Fleet) -> Table:
    rows = []
    for size in SIZES:
        for name, agent in fleet.agents.items():
            s3 = [size * agent.dollars(prices) for prices in (STANDARD, EXPRESS)]
            table, kms = size * agent.registry_dollars(), size * agent.kms_requests() * KMS_PRICE
            month = [MONTH_H * (each + table) for each in s3]
            rows.append((f"{size:,}", name, *(_money(each) for each in (*s3, table, kms, *month))))
    head = (
        "agents",
        "",
        "S3 Standard, $/h",
        "S3 Express, $/h",
        "DynamoDB, $/h",
        "KMS without bucket keys, $/h",
        "30 days on Standard, $",
        "30 days on Express, $",
    )
    return Table("Fleets: dollars", head, rows)


def _prefixes(fleet: Fleet) -> Table:
    rows = []
    size = SIZES[-1]
    for name, agent in fleet.agents.items():
        for folder in ("sessions", "journal"):
            writes = size * agent.below(folder, "PUT", "DELETE") / 3600
            reads = size * agent.below(folder, "GET", "LIST") / 3600
            parts = max(ceil(writes / PREFIX_WRITES), ceil(reads / PREFIX_READS))
            whole = 3600 * PREFIX_WRITES / agent.below(folder, "PUT", "DELETE")
            rows.append((name, f"`{folder}/`", amount(writes), amount(reads), f"{parts}", f"{whole:,.0f}"))
    head = ("", "below", "writes/s", "reads/s", "ranges that S3 has to split it into", "agents that need no split")
    return Table(f"S3 Standard: the folders of {size:,} agents", head, rows)


def _spread(fleet: Fleet, found: Row) -> Table:
    writes = fleet.session_writes(found["items"])
    rows = [
        (
            each["name"],
            f"`{each['example']}`",
            f"{each['shared']}",
            amount(writes * each["busiest_now"]),
            amount(writes * each["busiest_next"]),
        )
        for each in found["ways"]
    ]
    head = (
        "work items",
        "the first folder",
        "characters in common",
        "busiest range, writes/s",
        "the same with the next work items",
    )
    title = f"S3 Standard: `sessions/` of {found['items']:,} eager agents in {found['ranges']} ranges, split evenly"
    return Table(title, head, rows)


def _registry(fleet: Fleet) -> Table:
    rows = []
    for size in SIZES:
        agent = fleet.agents["eager"]  # the registry is asked for the same with all settings
        written = size * agent.units("write") / 3600
        scanned = size * fleet.sweep_units
        starts = size * fleet.runs_an_hour / 3600
        rows.append(
            (
                f"{size:,}",
                amount(written),
                amount(size * agent.units("read") / 3600),
                f"{max(1, ceil(written / PARTITION_WRITES))}",
                amount(size * fleet.item_bytes / MB),
                f"{ceil(scanned):,}",
                amount(starts * scanned),
                _money(3600 * starts * scanned * READ_UNITS_PRICE),
            )
        )
    head = (
        "agents",
        "write units/s",
        "read units/s",
        "partitions",
        "MB",
        "read units of a sweep",
        "read units/s if each run sweeps",
        "that, $/h",
    )
    return Table("DynamoDB", head, rows)


def _limits(fleet: Fleet) -> Table:
    rows = [
        (limit.name, limit.published, *(f"{_round(limit.agents[name]):,}" for name in fleet.agents))
        for limit in fleet.limits()
    ]
    return Table("What is used up first: at how many agents", ("", "there is", *fleet.agents), rows)


def _round(agents: float) -> int:
    digits = len(str(int(agents))) - 2
    return int(round(agents, -digits)) if digits > 0 else int(agents)


def _money(dollars: float) -> str:
    return f"{dollars:,.2f}" if dollars >= 0.1 else amount(dollars)
