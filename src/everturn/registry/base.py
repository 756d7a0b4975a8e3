"""What every registry does, whatever it keeps its rows in."""

from __future__ import annotations

from typing import Protocol

from everturn.model import Claim, SessionRecord, WorkItem


class Registry(Protocol):
    """Maps work items to sessions. Methods block; call them in a thread. What they return is durable.

    Every method raises `Unavailable` if the registry does not answer, `Denied` if it may not be used, and `Corrupt`
    if what it holds cannot be read.
    """

    def claim(self, work: WorkItem, worker: str, store: str = "") -> Claim:
        """Take a work item, with the next epoch. A new work item gets a fresh session id, stored before this returns.

        Whoever claimed it before is fenced off the transcript as soon as the new owner opens it.

        Args:
            work: The work item.
            worker: Who takes it; for people.
            store: The URL of the store that a new work item's transcript goes to.

        Returns:
            The claim, with the URL of the store that the transcript was in last.
        """

    def begin_anew(self, claim: Claim) -> Claim:
        """Give a claimed work item a fresh session id, because nothing was ever stored under its old one.

        Raises:
            Fenced: The work item was claimed again, or dropped, since.
        """

    def confirm(self, claim: Claim, cwd: str) -> None:
        """Note that a claim's session is in use, now, in this working directory, and in the claim's store.

        Raises:
            Fenced: The work item was claimed again, or dropped, since.
        """

    def get(self, work: WorkItem) -> SessionRecord | None:
        """Return what is known of a work item, or `None`."""

    def drop(self, work: WorkItem, session_id: str, reason: str) -> bool:
        """Forget a session, so that the next claim makes a new one. Return whether it was there."""
