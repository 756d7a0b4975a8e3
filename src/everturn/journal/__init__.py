"""The journal: every event of a run, written before it is shown (docs/journal.md)."""
