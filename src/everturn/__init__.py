"""Everturn keeps a coding agent's work alive when the worker that runs it dies."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from everturn.errors import Conflict, Corrupt, Denied, EverturnError, Fenced, Held, Invalid, NotFound, Unavailable
from everturn.model import Claim, SessionRecord, WorkItem

if TYPE_CHECKING:
    from everturn.runner.handle import Run
    from everturn.runtime import Runtime
    from everturn.settings import Settings
    from everturn.transcripts.store import TranscriptStore

__all__ = [
    "Claim",
    "Conflict",
    "Corrupt",
    "Denied",
    "EverturnError",
    "Fenced",
    "Held",
    "Invalid",
    "NotFound",
    "Run",
    "Runtime",
    "SessionRecord",
    "Settings",
    "TranscriptStore",
    "Unavailable",
    "WorkItem",
]

# The SDK takes half a second to import: who needs a part of this package only does not wait for it.
_LATER = {
    "Run": "everturn.runner.handle",
    "Runtime": "everturn.runtime",
    "Settings": "everturn.settings",
    "TranscriptStore": "everturn.transcripts.store",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
