"""`everturn journal schema`."""

from __future__ import annotations

import json
import sys

from everturn.cli.output import printing
from everturn.journal.schema import schema


def command() -> None:
    """Print the JSON Schema of a journal's lines."""
    with printing():
        sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
