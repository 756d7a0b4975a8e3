"""From one agent to a fleet: rates, dollars, and which limit is met at how many agents.

Agents share a bucket and a table, and nothing else: what one asks for does not depend on how many others there are.
So means grow with the number of agents. The busiest second of many independent agents lies three standard deviations
above the mean, and those grow with its root.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import fmean

from bench.costs import PRICES, Hour, Prices
from bench.scale.run import Row, total

SIZES = (10, 1_000, 100_000)

# Published by AWS; docs/scale.md says where.
PREFIX_WRITES, PREFIX_READS = 3_500, 5_500
EXPRESS_WRITES, EXPRESS_READS = 100_000, 200_000
TABLE_UNITS, NEW_TABLE_WRITES = 40_000, 4_000
PARTITION_WRITES = 1_000
KMS_REQUESTS = 10_000
WRITE_UNITS_PRICE, READ_UNITS_PRICE = 0.625e-6, 0.125e-6
KMS_PRICE = 0.03e-4
DEVIATIONS = 3


@dataclass(frozen=True)
class Agent:
    """What an agent asks for in an hour: the mean of those that were simulated.

    Attributes:
        rows: Those.
        hours: How long each was simulated.
        runs: How many runs each made.
    """

    rows: list[Row]
    hours: float
    runs: int

    def requests(self, *kinds: str) -> float:
        """Return requests to S3 an hour."""
        return fmean(total(row, *kinds) for row in self.rows) / self.hours

    def below(self, folder: str, *kinds: str) -> float:
        """Return requests an hour for keys below one of the root's folders."""
        return (
            fmean(sum(row["folders"].get(folder, {}).get(kind, 0) for kind in kinds) for row in self.rows)
            / self.hours
        )

    def for_purpose(self, purpose: str, kind: str) -> float:
        """Return requests an hour that are made for something."""
        return fmean(row["requests"].get(purpose, {}).get(kind, 0) for row in self.rows) / self.hours

    def figure(self, name: str) -> float:
        """Return a plain figure, an hour."""
        return fmean(float(row[name]) for row in self.rows) / self.hours

    def kept_bytes(self, folder: str | None = None) -> float:
        """Return what an hour leaves in the bucket, all of it or below one folder."""
        return (
            fmean(
                sum(size for name, size in row["kept_bytes"].items() if folder in (None, name)) for row in self.rows
            )
            / self.hours
        )

    def units(self, kind: str) -> float:
        """Return units of DynamoDB an hour."""
        return fmean(row["units"][kind] for row in self.rows) / self.hours

    def busiest(self, kind: str, agents: int) -> float:
        """Return requests in a busy second of so many agents."""
        mean = fmean(row[kind]["mean"] for row in self.rows)
        variance = fmean(row[kind]["variance"] for row in self.rows)
        return agents * mean + DEVIATIONS * sqrt(agents * variance)

    def dollars(self, prices: Prices) -> float:
        """Return what an hour costs in S3, with what it leaves kept for 30 days."""
        return self._as_hour().dollars(prices)

    def registry_dollars(self) -> float:
        """Return what an hour costs in DynamoDB."""
        return self.units("write") * WRITE_UNITS_PRICE + self.units("read") * READ_UNITS_PRICE

    def kms_requests(self) -> float:
        """Return requests of S3 to KMS an hour, without bucket keys: one for each object written or read."""
        return self.requests("PUT", "GET")

    def _as_hour(self) -> Hour:
        return Hour(
            puts=self.requests("PUT"),
            lists=self.requests("LIST"),
            gets=self.requests("GET"),
            sent_bytes=self.figure("sent_bytes"),
            fetched_bytes=self.figure("fetched_bytes"),
            kept_bytes=self.kept_bytes(),
        )


@dataclass(frozen=True)
class Limit:
    """A limit, and how many agents meet it.

    Attributes:
        name: What is limited.
        published: How much there is by default.
        agents: With how many agents it is used up, in each scenario.
    """

    name: str
    published: str
    agents: dict[str, float]


class Fleet:
    """Fleets of agents such as were simulated.

    Args:
        results: What `bench.scale.run` returned.
    """

    def __init__(self, results: Row) -> None:
        hours = results["seconds"] / 3600
        self.agents = {name: Agent(rows, hours, results["runs"]) for name, rows in results["scenarios"].items()}
        self.runs_an_hour = results["runs"] / hours
        self.sweep_units = results["sweep"]["units"] / results["sweep"]["rows"]
        self.item_bytes = results["scenarios"]["eager"][0]["item_bytes"]

    def session_writes(self, agents: int) -> float:
        """Return writes a second to the transcripts of so many eager agents."""
        return agents * self.agents["eager"].below("sessions", "PUT", "DELETE") / 3600

    def ranges(self, agents: int) -> int:
        """Return into how many ranges S3 has to have split those, with each half busy."""
        return ceil(2 * self.session_writes(agents) / PREFIX_WRITES)

    def limits(self) -> list[Limit]:
        """Return all limits, in the order in which a fleet with the defaults meets them."""
        writes, reads = ("PUT", "DELETE"), ("GET", "LIST")
        found = [
            self._limit("S3 Standard: writes to a prefix that S3 has not split", PREFIX_WRITES, "/s", _s3(writes)),
            self._limit("S3 Express: writes to a directory bucket", EXPRESS_WRITES, "/s", _s3(writes)),
            self._limit("S3 Standard: reads of a prefix that S3 has not split", PREFIX_READS, "/s", _s3(reads)),
            self._limit("S3 Express: reads of a directory bucket", EXPRESS_READS, "/s", _s3(reads)),
            self._limit("KMS, with SSE-KMS and no bucket key", KMS_REQUESTS, "/s", Agent.kms_requests),
            self._limit("DynamoDB: writes to a table that is new", NEW_TABLE_WRITES, " units/s", _written_units),
            self._limit("DynamoDB: writes to a table", TABLE_UNITS, " units/s", _written_units),
            self._sweeping(),
        ]
        return sorted(found, key=lambda limit: limit.agents["eager"])

    def _limit(self, name: str, there_is: int, unit: str, an_hour: Callable[[Agent], float]) -> Limit:
        """Return a limit that is shared evenly: what there is in a second, by what one agent takes in an hour."""
        agents = {each: there_is / _a_second(an_hour(agent)) for each, agent in self.agents.items()}
        return Limit(name, f"{there_is:,}{unit}", agents)

    def _sweeping(self) -> Limit:
        """Return the one that goes with the square of the agents: each of them reads the rows of all."""
        most = sqrt(TABLE_UNITS / (_a_second(self.runs_an_hour) * self.sweep_units))
        name = "DynamoDB: reads of a table, if each run is a process that sweeps at its start"
        return Limit(name, f"{TABLE_UNITS:,} units/s", dict.fromkeys(self.agents, most))


def _s3(kinds: tuple[str, ...]) -> Callable[[Agent], float]:
    return lambda agent: agent.requests(*kinds)


def _written_units(agent: Agent) -> float:
    return agent.units("write")


def _a_second(an_hour: float) -> float:
    return an_hour / 3600


STANDARD, EXPRESS = PRICES
