"""Everturn keeps a coding agent's work alive when the worker that runs it dies."""

from everturn.errors import Conflict, Corrupt, Denied, EverturnError, Fenced, Held, Invalid, NotFound, Unavailable
from everturn.model import Claim, SessionRecord, WorkItem
from everturn.runner import Run
from everturn.runtime import Runtime
from everturn.settings import Settings
from everturn.transcripts import TranscriptStore

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
