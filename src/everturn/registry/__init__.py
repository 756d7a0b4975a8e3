"""Who owns which session."""

from everturn.registry.base import Registry
from everturn.registry.sqlite import SqliteRegistry, open_registry

__all__ = ["Registry", "SqliteRegistry", "open_registry"]
