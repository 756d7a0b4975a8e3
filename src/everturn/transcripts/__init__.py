"""Transcripts of the Claude Agent SDK on an object store."""

from everturn.transcripts.store import TranscriptStore

__all__ = ["TranscriptStore"]
