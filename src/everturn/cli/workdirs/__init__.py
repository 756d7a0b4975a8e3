"""`everturn workdirs`: what agents work in, one file a command."""

from everturn.cli.workdirs.group import app

__all__ = ["app"]
