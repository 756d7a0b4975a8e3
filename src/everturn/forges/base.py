"""What every forge's webhooks come to, whatever their headers and payloads look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, Self

from everturn.model import ForgeName

Headers = Mapping[str, str]  # by names in small letters; whoever makes one has refused those that came twice
Kind = Literal["change_closed", "branch_deleted", "issue_closed"]


@dataclass(frozen=True, slots=True)
class Happening:
    """Something at a forge that ends work.

    Attributes:
        kind: What it is. A change is a pull request or a merge request, merged or not.
        repo: Where it happened: every URL of the repository that the forge names.
        number: The change or the issue, as a work item names it: `7`; a merge request of GitLab, which counts them by
            themselves: `!7`.
        branch: The branch that was deleted, or that the change came from; without `refs/heads/`.
        branch_repo: Where that branch is: every URL of the repository, which for a change may be a fork's. Empty if
            there is none any more.
        refs: Other names under which a run may have been asked to work on the change: `refs/pull/7/head`, …
    """

    kind: Kind
    repo: tuple[str, ...]
    number: str | None = None
    branch: str | None = None
    branch_repo: tuple[str, ...] = ()
    refs: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Return what `facts` had told."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()
        }
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook that really comes from its forge.

    Attributes:
        forge: Which one.
        delivery_id: The forge's own id of it; the same when it is sent again.
        event: What the forge calls it.
        happening: What ends work by it; `None`: nothing.
        ignored: Why nothing does, for people; empty if something does.
    """

    forge: ForgeName
    delivery_id: str
    event: str
    happening: Happening | None = None
    ignored: str = ""


class Forge(Protocol):
    """How one kind of forge speaks. Pure: nothing is asked for, nothing is kept.

    Attributes:
        name: Which one it is.
        signed_by: The headers of which one at least has to be there, in small letters.
        content_types: How it sends webhooks.
    """

    name: ForgeName
    signed_by: tuple[str, ...]
    content_types: tuple[str, ...]

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[str], now: float) -> None:
        """Return if a webhook was signed with one of our secrets. Takes the same time for every wrong signature.

        Args:
            headers: Those of the request.
            body: Its body, as it came.
            secrets: Those that the forge may sign with; none: nothing is believed.
            now: The time of day, for signatures that get old; seconds since the Unix epoch.

        Raises:
            Denied: It has no signature, or a wrong one, or there is no secret.
        """

    def read(self, headers: Headers, body: bytes) -> Delivery:
        """Return what a webhook says.

        Args:
            headers: Those of the request.
            body: Its body, which was verified.

        Raises:
            Invalid: It is no JSON object, it has no id or no event, the forge has no such event, or something that we
                need is missing or of another kind.
        """
