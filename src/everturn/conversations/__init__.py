"""Transcripts as people read them: turns, tool calls, subagents; on a terminal, in Markdown, as a page."""
