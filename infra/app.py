"""The CDK app. `cdk synth` runs it; without the CDK's command: `python app.py [--out FOLDER] [-c KEY=VALUE …]`."""

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
    parser.add_argument("--out", type=Path, default=HERE / "cdk.out", help="the folder for the template")
    parser.add_argument(
        "-c", "--context", action="append", default=[], type=_pair, metavar="KEY=VALUE", help="an option of the stack"
    )
    given = parser.parse_args(arguments)
    told = os.environ.get("CDK_CONTEXT_JSON")  # by the CDK's command, which also says where the template goes
    if told:
        context, app = json.loads(told), App()
    else:
        context = json.loads((HERE / "cdk.json").read_text())["context"] | dict(given.context)
        app = App(context=context, outdir=str(given.out), analytics_reporting=False)
    try:
        EverturnStack(app, Options.from_context(context))
        app.synth()
    except (Wrong, RuntimeError) as error:  # the CDK has rules of its own, for names above all
        print(error, file=sys.stderr)
        return 2
    return 0


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
