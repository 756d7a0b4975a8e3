"""Who owns which session."""

from everturn.registry.base import Registry
from everturn.registry.dynamodb import DynamoDbRegistry
from everturn.registry.opening import open_registry
from everturn.registry.sqlite import SqliteRegistry

__all__ = ["DynamoDbRegistry", "Registry", "SqliteRegistry", "open_registry"]
