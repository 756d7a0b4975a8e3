"""Webhooks of GitHub.

What they look like: https://docs.github.com/en/webhooks/webhook-events-and-payloads, and the examples in
https://github.com/octokit/webhooks. How they are signed:
https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries.
"""

from __future__ import annotations

from collections.abc import Sequence

from everturn.forges import events
from everturn.forges.base import Headers
from everturn.forges.dialect import Dialect
from everturn.forges.signatures import check_hex, denied
from everturn.model import ForgeName

_HEADER = "x-hub-signature-256"
_PREFIX = "sha256="


class GitHub(Dialect):
    """GitHub, and GitHub Enterprise Server. It implements `Forge`."""

    name: ForgeName = "github"
    title = "GitHub"
    prefix = "x-github"
    others = events.GITHUB
    pull_refs = ("refs/pull/{number}/head", "refs/pull/{number}/merge")
    signed_by: tuple[str, ...] = (_HEADER,)

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[str], now: float) -> None:  # noqa: ARG002
        """Return if the body was signed, as it came; see `Forge.verify`."""
        given = headers.get(_HEADER, "")
        if given and not given.startswith(_PREFIX):
            raise denied(f"the webhook's signature is none: {_HEADER} has to begin with {_PREFIX}")
        check_hex(_HEADER, given.removeprefix(_PREFIX), body, secrets)
