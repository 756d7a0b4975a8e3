"""What every registry does, whatever it keeps its rows in."""

from __future__ import annotations

from typing import Protocol

from everturn.errors import Held
from everturn.model import Claim, Holder, SessionRecord, WorkItem


class Registry(Protocol):
    """Maps work items to sessions, and says who may write each of them now.

    Methods block; call them in a thread. What they return is durable. Every method raises `Unavailable` if the
    registry does not answer (call it again with the same arguments: nothing is done twice), `Denied` if it may not
    be used, and `Corrupt` if what it holds cannot be read.

    A claim is *live* until its time is up, unless it is renewed, or released before. A session that nobody holds and
    that was last used longer ago than its agent's limit is *stale*: it is dropped by whoever asks for it.
    """

    def claim(
        self, work: WorkItem, holder: Holder, store: str = "", *, ttl_s: float, instead_of: Held | None = None
    ) -> Claim:
        """Take a work item, with the next epoch.

        A work item without a session, or with a stale one, gets a fresh session id, stored before this returns.
        Whoever held the claim before is fenced off the transcript as soon as the new holder opens it.

        Args:
            work: The work item.
            holder: Who takes it. A holder whose run has the claim already gets it again, with the next epoch.
            store: The URL of the store that a new session's transcript goes to.
            ttl_s: How long the claim lasts without being renewed.
            instead_of: A refusal that this call got before, whose holder is known to be dead. The claim is taken
                over although its time is not up, if it is still the one that the refusal was about.

        Returns:
            The claim, with the URL of the store that the transcript was in last.

        Raises:
            Held: Somebody else has a live claim.
            Invalid: The time is not a positive number.
        """

    def renew(self, claim: Claim, ttl_s: float) -> Claim:
        """Let a claim last for this long from now.

        A claim whose time was up is renewed too, if nobody else has taken the work item.

        Raises:
            Fenced: The work item was claimed again, began anew, was dropped or released.
        """

    def release(self, claim: Claim) -> None:
        """Let go of a work item, so that anybody may claim it. To release a claim a second time does nothing.

        Raises:
            Fenced: The work item was claimed again, began anew, or was dropped. The claim of another stays as it is.
        """

    def begin_anew(self, claim: Claim, reason: str = "nothing was stored under the old id") -> Claim:
        """Give a claimed work item a fresh session id and the next epoch; the old id is forgotten for good.

        The claim lasts as long as it did, and the session is as good as new: in the claim's store, used now, in no
        directory yet, not tainted.

        Raises:
            Fenced: The work item was claimed again, dropped or released.
        """

    def confirm(self, claim: Claim, cwd: str) -> None:
        """Note that a claim's session is in use, now, in this working directory, and in the claim's store.

        From then on, each renewal and the release count as uses, too.

        Raises:
            Fenced: The work item was claimed again, began anew, was dropped or released.
        """

    def taint(self, claim: Claim, reason: str | None) -> None:
        """Note what of a session's transcript is missing and could not be healed; `None`: nothing.

        Raises:
            Fenced: The work item was claimed again, began anew, was dropped or released.
        """

    def get(self, work: WorkItem | str) -> SessionRecord | None:
        """Return what is known of a work item, or of the one with a key, or `None`. A stale session is dropped, and
        not returned."""

    def find(self, session_id: str) -> SessionRecord | None:
        """Return what is known of a session, or `None`. A stale one is dropped, and not returned."""

    def records(self) -> list[SessionRecord]:
        """Return what is known of all work items, stale sessions too, in the order of their keys."""

    def drop(self, work: WorkItem | str, session_id: str, reason: str, *, unless_held: bool = False) -> bool:
        """Forget a session, so that the next claim makes a new one. Whoever holds it learns of it when it renews.

        Args:
            work: The work item, or its key.
            session_id: The session. If the work item has another one by now, nothing is done.
            reason: Why, for the log.
            unless_held: Whether a session that somebody holds is left as it is. It is looked and forgotten in one
                step: nobody who claims it meanwhile loses it.

        Returns:
            Whether it was there.

        Raises:
            Held: Somebody has a live claim, and was not to lose it.
        """

    def sweep(self, *, dry_run: bool = False) -> list[SessionRecord]:
        """Drop every stale session.

        Args:
            dry_run: Only say which.

        Returns:
            What was dropped, or would be.
        """
