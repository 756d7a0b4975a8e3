"""How long `import everturn` takes, beyond the agent SDK that every user of it imports anyway.

    python -m bench.import_time [--python PATH] [--limit-ms 150]

Imports wait for nothing, so their processor time is what they take on a machine with nothing else to do. It is
measured in processes of their own, in turn with one that imports the SDK alone, and the least of several counts: a
busy machine makes it longer, never shorter. Measured with an interpreter whose environment has the extras of
development, the SDK itself is slower: `make release-check` gives it a clean one.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence

SDK = "import claude_agent_sdk"
WHAT = {
    "import everturn": "import everturn",
    "the session store": "from everturn import TranscriptStore",
    "a durable run": "from everturn import Runtime",
    "every public name": "from everturn import *",
}
LIMIT_MS = 150.0
ROUNDS = 7
_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s*(\S+)")


def main() -> int:
    """Print what was measured; 1 if something takes longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has everturn installed")
    parser.add_argument("--limit-ms", type=float, default=LIMIT_MS, help="beyond the SDK's own; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    least = measure(given.python, [SDK, *(f"{SDK}; {what}" for what in WHAT.values())], given.rounds)
    sdk_s = least[SDK]
    print(f"{'the SDK itself':20} {sdk_s * 1000:6.0f} ms")
    beyond = {name: (least[f"{SDK}; {what}"] - sdk_s) * 1000 for name, what in WHAT.items()}
    for name, ms in beyond.items():
        print(f"{name:20} {ms:+6.0f} ms  {ms / sdk_s / 10:+.0f}%")
    print("\nMost of the last, by package:")
    for package, ms in by_package(given.python, f"{SDK}; {WHAT['every public name']}")[:10]:
        print(f"{package:20} {ms:6.1f} ms")
    if max(beyond.values()) <= given.limit_ms:
        return 0
    print(f"\nThat is more than {given.limit_ms:.0f} ms: import later what is needed later.", file=sys.stderr)
    return 1


def measure(python: str, programs: Sequence[str], rounds: int) -> Mapping[str, float]:
    """Return the least processor time that each program took, in seconds."""
    least: dict[str, float] = defaultdict(lambda: float("inf"))
    for program in programs:  # compiled once, and in the system's memory
        _processor_s(python, program)
    for _ in range(rounds):
        for program in programs:
            least[program] = min(least[program], _processor_s(python, program))
    return least


def _processor_s(python: str, program: str) -> float:
    process = subprocess.Popen([python, "-I", "-c", program])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{python} cannot run: {program}")
    return usage.ru_utime + usage.ru_stime


def by_package(python: str, program: str) -> list[tuple[str, float]]:
    """Return how many milliseconds each package's own code took that was loaded after the SDK, the most first."""
    traced = [python, "-I", "-X", "importtime", "-c", program]
    lines = subprocess.run(traced, capture_output=True, text=True, check=True).stderr.splitlines()
    found = [match.groups() for match in map(_LINE.match, lines) if match]
    after = [name for _, name in found].index("claude_agent_sdk") + 1
    spent: dict[str, float] = defaultdict(float)
    for own_us, name in found[after:]:
        spent[name.partition(".")[0]] += int(own_us) / 1000
    return sorted(spent.items(), key=lambda entry: -entry[1])


if __name__ == "__main__":
    sys.exit(main())
