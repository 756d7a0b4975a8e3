"""`everturn journal`: what happened in runs, one file a command."""

from everturn.cli.journal.group import app

__all__ = ["app"]
