"""The `everturn` command."""

from everturn.cli.app import main

__all__ = ["main"]
