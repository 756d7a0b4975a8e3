"""`everturn mirrors`: what is derived from journals, one file a command."""

from everturn.cli.mirrors.group import app

__all__ = ["app"]
