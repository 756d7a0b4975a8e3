"""How long `import everturn` takes, beyond the agent SDK that every user of it imports anyway; and how long commands
take to begin, beside the SDK.

    python -m bench.import_time [--python PATH] [--limit-ms MS]

Imports wait for nothing, so their processor time is what they take on a machine with nothing else to do. It is
measured in processes of their own, in turn with one that imports the SDK alone, and the least of several counts: a
busy machine makes it longer, never shorter. The goal, 150 ms, is for each of the three ways to use Everturn, with
the garbage collector paused: how often that goes through all that the SDK has made, and during whose import, is
chance. Measured with an interpreter whose environment has the extras of development, the SDK itself is slower:
`make release-check` gives it a clean one, and shows the figures; only `--limit-ms` makes the command fail by them.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence

SDK = "import claude_agent_sdk"
PAUSED = f"import gc; gc.disable(); {SDK}"
WHAT = {
    "import everturn": "import everturn",
    "the session store": "from everturn import TranscriptStore",
    "a durable run": "from everturn import Runtime",
    "every public name": "from everturn import *",
}
USES = tuple(WHAT)[:3]
COMMANDS = {
    f"import sys; sys.argv[1:] = {[*words.split(), '--help']}; from everturn.cli import main; main()": words
    for words in ("--version", "journal list", "sessions list", "search", "workdirs list", "serve", "run", "doctor")
}
ROUNDS = 5
_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s*(\S+)")


def main() -> int:
    """Print what was measured; 1 if something takes longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has everturn installed")
    parser.add_argument("--limit-ms", type=float, help="fail if a way to use it takes longer, beyond the SDK's own")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    programs = [
        f"{before}{what}" for before in (PAUSED, SDK) for what in ("", *(f"; {each}" for each in WHAT.values()))
    ]
    least = measure(given.python, programs, given.rounds)
    print(f"{'':20} {'by itself':>10} {'with the collector':>20}")
    print(f"{'the SDK itself':20} {least[PAUSED] * 1000:7.0f} ms {least[SDK] * 1000:17.0f} ms")
    beyond = {}
    for name, what in WHAT.items():
        beyond[name], collected = ((least[f"{base}; {what}"] - least[base]) * 1000 for base in (PAUSED, SDK))
        print(f"{name:20} {beyond[name]:+7.0f} ms {collected:+17.0f} ms")
    print("\nMost of the last, by package:")
    for package, ms in by_package(given.python, f"{SDK}; {WHAT['every public name']}")[:10]:
        print(f"{package:20} {ms:6.1f} ms")
    print("\nCommands, from their beginning to the end of their help, and how that compares with the SDK's import:")
    for program, took_s in measure(given.python, list(COMMANDS), given.rounds).items():
        print(f"{COMMANDS[program]:20} {took_s * 1000:7.0f} ms {took_s / least[SDK]:9.0%}")
    if given.limit_ms is None or max(beyond[name] for name in USES) <= given.limit_ms:
        return 0
    print(f"\nThat is more than {given.limit_ms:.0f} ms: import later what is needed later.", file=sys.stderr)
    return 1


def measure(python: str, programs: Sequence[str], rounds: int) -> dict[str, float]:
    """Return the least processor time that each program took, in seconds."""
    least: dict[str, float] = defaultdict(lambda: float("inf"))
    for program in programs:  # compiled once, and in the system's memory
        _processor_s(python, program)
    for _ in range(rounds):
        for program in programs:
            least[program] = min(least[program], _processor_s(python, program))
    return least


def _processor_s(python: str, program: str) -> float:
    process = subprocess.Popen([python, "-I", "-c", program], stdout=subprocess.DEVNULL)
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
