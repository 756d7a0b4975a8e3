"""What forges say in their webhooks: whether it is really them, and what of it ends work."""

from everturn.forges.base import Delivery, Forge, Happening, Headers

__all__ = ["Delivery", "Forge", "Happening", "Headers"]
