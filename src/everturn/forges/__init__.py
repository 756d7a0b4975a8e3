"""What forges say in their webhooks: whether it is really them, and what of it ends work."""

from collections.abc import Mapping

from everturn.forges.base import Delivery, Forge, Happening, Headers
from everturn.forges.forgejo import Forgejo
from everturn.forges.gitea import Gitea
from everturn.forges.github import GitHub
from everturn.forges.gitlab import GitLab
from everturn.forges.places import place_of, same_repository
from everturn.model import ForgeName

FORGES: Mapping[ForgeName, Forge] = {each.name: each for each in (GitHub(), Gitea(), Forgejo(), GitLab())}

__all__ = ["FORGES", "Delivery", "Forge", "Happening", "Headers", "place_of", "same_repository"]
