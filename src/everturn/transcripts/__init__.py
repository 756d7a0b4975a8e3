"""Transcripts of the Claude Agent SDK on an object store."""
