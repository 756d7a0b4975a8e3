"""A fleet that was made up: claims in a real registry, journals in a real store, and a desk that looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from everturn.errors import Held
from everturn.journal.events import Ended, Event, Prompt, Resumed, Started
from everturn.model import Claim, Holder, WorkItem
from everturn.service.parts import Parts
from everturn.service.views.desk import Desk
from everturn.settings import Settings
from journals import JournalStore
from mirrored import answered, called, init, resulted

REPO = "https://forge.example/acme/web.git"


class Fleet:
    """A registry, a store, a logbook and a desk in a folder.

    Args:
        folder: Where.
        given: Other settings.
    """

    def __init__(self, folder: Path, **given: object) -> None:
        self.journals = JournalStore(folder)
        base = {"store": self.journals.url, "state": folder / "state", "dashboard_refresh_s": 0.1}
        self.settings = Settings.load(**{**base, **given})
        self.parts = Parts.open(self.settings)
        self.desk = Desk(self.parts)

    def close(self) -> None:
        """Stop what was started."""
        self.desk.stop(10)
        self.parts.close()

    def claim(
        self, work: WorkItem, run_id: str, *, worker: str = "w1", ttl_s: float = 300.0, instead_of: Held | None = None
    ) -> Claim:
        """Claim a work item."""
        holder = Holder(worker, run_id)
        store = self.settings.store_url()
        return self.parts.registry.claim(work, holder, store, ttl_s=ttl_s, instead_of=instead_of)

    def keep(self, claim: Claim, events: Sequence[Event]) -> None:
        """Store the journal of the run that has a claim."""
        self.journals.keep(claim.run_id, events, at_once=50, work=claim.work.key)

    def ran(self, work: WorkItem, run_id: str, *, worker: str = "w1", words: str = "hello") -> Claim:
        """A run of one turn that has ended in good order."""
        claim = self.claim(work, run_id, worker=worker)
        self.keep(claim, [*begun(claim, worker=worker), *turn(words), Ended("completed")])
        self.parts.registry.release(claim)
        return claim


def issue(number: int, agent: str = "fixer") -> WorkItem:
    """Return a work item."""
    return WorkItem(agent, REPO, number)


def begun(claim: Claim, *, worker: str = "w1", previous: str | None = None, took_over: bool = False) -> list[Event]:
    """Return how the run of a claim begins."""
    work = claim.work
    started = Started(
        claim.run_id,
        work.key,
        claim.session_id,
        claim.epoch,
        worker,
        "/desk",
        agent=work.agent,
        repo=work.repo,
        issue=None if work.issue is None else str(work.issue),
        branch="mend-it",
        previous_run_id=previous,
    )
    resumed = [] if previous is None else [Resumed(claim.session_id, previous, took_over=took_over)]
    return [started, *resumed, init()]


def turn(words: str, *, cost_usd: float | None = 0.5, resumed: bool = False, ends: bool = True) -> list[Event]:
    """Return a turn: a prompt, a tool's call, an answer and, unless it goes on, its result."""
    end = [resulted(cost_usd)] if ends else []
    return [
        Prompt(f"Mend {words}.", resumed=resumed),
        *called("Read", {"file_path": words}, words),
        answered(words),
        *end,
    ]
