"""A process that does something with a mirror: `python worker.py FOLDER what …`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from everturn.errors import NotFound
from everturn.journal.reading import RunRef
from everturn.mirrors import building
from everturn.mirrors.base import Batch
from everturn.mirrors.keeping import Progress, catch_up, rebuild
from mirrors.ground import Ground, a_run, lines_of_events


def say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def say_and_wait(progress: Progress) -> None:
    """Say how far it has come, and go no further until whoever listens has heard of it."""
    say(progress.runs)
    sys.stdin.readline()


def fold(ground: Ground, run_id: str) -> None:
    """Fold a run as it grows, a few lines at a time, as its worker would."""
    mirror, lines = ground.mirror(), lines_of_events(a_run(run_id) * 5)
    ref = RunRef("task:live", run_id)
    for end in range(1, len(lines) + 1):
        if not mirror.fold(Batch(ref, lines[end - 1 : end], after=end - 1)):
            mirror.fold(Batch(ref, lines[:end]))
    mirror.close()


def read(ground: Ground) -> None:
    """Ask again and again, and say so once. What a run says and what its rows say has to agree each time."""
    mirror, seen = ground.mirror(), 0
    while not (ground.folder / "enough").exists():
        try:
            with mirror.reading() as connection:
                connection.execute("BEGIN")
                (told,) = connection.execute("SELECT sum(tool_calls) FROM runs").fetchone()
                (there,) = connection.execute("SELECT count(*) FROM tool_calls").fetchone()
                connection.execute("SELECT count(*) FROM texts_fts WHERE texts_fts MATCH 'hello'").fetchone()
                assert (told or 0) == there
                seen += 1
                if seen == 1:
                    say(seen)
        except NotFound:
            continue


def main() -> None:
    ground = Ground(Path(sys.argv[1]), on_disk=True)
    what = sys.argv[2]
    if what == "fold":
        fold(ground, sys.argv[3])
    elif what == "read":
        read(ground)
    elif what == "rebuild slowly":
        building.COMMIT_CHARS, building.GROUP_RUNS = 0, 1
        rebuild(ground.journals, ground.mirror(), told=say_and_wait)
    else:
        for _ in range(5):
            (rebuild if what == "rebuild" else catch_up)(ground.journals, ground.mirror())


if __name__ == "__main__":
    main()
