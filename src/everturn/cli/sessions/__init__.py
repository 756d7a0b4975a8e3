"""`everturn sessions`: find, read and look after sessions, one file a command."""

from everturn.cli.sessions.group import app

__all__ = ["app"]
