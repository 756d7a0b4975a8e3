"""The CDK app: `cdk synth` runs it, and so does `python app.py [--out FOLDER] [-c KEY=VALUE …]` without the CDK's CLI."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from aws_cdk import App
from everturn_infra import EverturnStack, Options
from everturn_infra.options import Wrong

HERE = Path(__file__).parent


def main(arguments: Sequence[str]) -> int:
    """Synthesize the stack, and return the exit code."""
    parser = argparse.ArgumentParser(description="Synthesize Everturn's stack (docs/aws.md).")
    parser.add_argument("--out", type=Path, default=HERE / "cdk.out", help="where the template goes")
    parser.add_argument("-c", "--context", action="append", default=[], metavar="KEY=VALUE", help="an option")
    given = parser.parse_args(arguments)
    if "CDK_CONTEXT_JSON" in os.environ:
        context, app = json.loads(os.environ["CDK_CONTEXT_JSON"]), App()
    else:
        context = json.loads((HERE / "cdk.json").read_text())["context"]
        context |= dict(pair.split("=", 1) for pair in given.context if "=" in pair)
        app = App(context=context, outdir=str(given.out), analytics_reporting=False)
    try:
        EverturnStack(app, Options.from_context(context))
    except Wrong as error:
        print(error, file=sys.stderr)
        return 2
    app.synth()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
