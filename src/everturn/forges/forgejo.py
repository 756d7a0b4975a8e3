"""Webhooks of Forgejo, which go on from Gitea's under names of their own.

What they look like: https://forgejo.org/docs/latest/user/webhooks. How they are signed:
https://codeberg.org/forgejo/forgejo/src/branch/forgejo/services/webhook/shared/payloader.go. Gitea's and
GitHub's headers come with them; they count for nothing here.
"""

from __future__ import annotations

from everturn.forges import events
from everturn.forges.gitea import Gitea
from everturn.model import ForgeName


class Forgejo(Gitea):
    """Forgejo. It implements `Forge`."""

    name: ForgeName = "forgejo"
    title = "Forgejo"
    prefix = "x-forgejo"
    others = events.FORGEJO
    signed_by: tuple[str, ...] = ("x-forgejo-signature",)
