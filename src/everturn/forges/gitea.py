"""Webhooks of Gitea.

What they look like: https://docs.gitea.com/usage/repository/webhooks. How they are signed:
https://github.com/go-gitea/gitea/blob/main/services/webhook/deliver.go. What a pull request says of a branch that is
gone: https://github.com/go-gitea/gitea/blob/main/services/convert/pull.go.
"""

from __future__ import annotations

from collections.abc import Sequence

from everturn.forges import events
from everturn.forges.base import Headers
from everturn.forges.dialect import Dialect
from everturn.forges.payloads import FORM, content_type_of, form_payload
from everturn.forges.signatures import check_hex
from everturn.model import ForgeName


class Gitea(Dialect):
    """Gitea. It implements `Forge`."""

    name: ForgeName = "gitea"
    title = "Gitea"
    prefix = "x-gitea"
    others = events.GITEA
    pull_refs = ("refs/pull/{number}/head",)
    signed_by: tuple[str, ...] = ("x-gitea-signature",)

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[str], now: float) -> None:  # noqa: ARG002
        """Return if the JSON was signed: that is what Gitea signs, even where it sends a form. See `Forge.verify`."""
        (header,) = self.signed_by
        payload = form_payload(body) if content_type_of(headers) == FORM else None
        check_hex(header, headers.get(header), body if payload is None else payload, secrets)
