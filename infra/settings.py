"""Turn the outputs of a stack into Everturn's settings: `python settings.py STACK > everturn.toml` (docs/aws.md)."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_SETTING = re.compile(r"(Everturn|Aws)([A-Z][A-Za-z0-9]*)")


def main(arguments: Sequence[str]) -> int:
    """Print the settings, and return the exit code."""
    parser = argparse.ArgumentParser(description="Print the settings that a deployed stack stands for.")
    parser.add_argument("stack", help="the stack's name")
    parser.add_argument("--region", help="where it is; boto3 knows it otherwise")
    parser.add_argument(
        "--outputs",
        type=Path,
        help="a file that has them, of `cdk deploy --outputs-file` or `aws cloudformation describe-stacks`;"
        " AWS is asked otherwise",
    )
    parser.add_argument(
        "--format", choices=["toml", "env"], default="toml", help="everturn.toml, or a shell's exports"
    )
    given = parser.parse_args(arguments)
    try:
        if given.outputs:
            outputs = read(json.loads(given.outputs.read_text()), given.stack)
        else:
            outputs = ask(given.stack, given.region)
    except (LookupError, OSError, ValueError) as error:
        print(f"the outputs of {given.stack} cannot be read: {error}", file=sys.stderr)
        return 2
    print(as_toml(outputs) if given.format == "toml" else as_exports(outputs))
    return 0


def ask(stack: str, region: str | None = None) -> dict[str, str]:
    """Return the outputs of a stack, asked from CloudFormation.

    Raises:
        LookupError: CloudFormation does not know it, or cannot be asked.
    """
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise LookupError("boto3 is not installed here; run it with that of .venv-infra, or with --outputs") from None
    try:
        client = boto3.client("cloudformation", region_name=region)
        return read(client.describe_stacks(StackName=stack), stack)
    except (BotoCoreError, ClientError) as error:
        raise LookupError(str(error)) from error


def read(document: Any, stack: str) -> dict[str, str]:
    """Return the outputs of a stack, from either form that tools write them in.

    Raises:
        LookupError: The document does not have the stack.
    """
    if not isinstance(document, Mapping):
        raise LookupError("there is no object in it")  # noqa: TRY004  # it is a file of somebody else
    if "Stacks" not in document and stack in document:
        outputs: dict[str, str] = document[stack]
        return outputs
    for each in document.get("Stacks", []):
        if stack in (each["StackName"], each.get("StackId")):
            return {output["OutputKey"]: output["OutputValue"] for output in each.get("Outputs", [])}
    raise LookupError("it is not there")


def variables(outputs: Mapping[str, str]) -> dict[str, str]:
    """Return those outputs that are settings, by their names in the environment: `EVERTURN_STORE`."""
    return {
        "_".join(re.findall(r"[A-Z][a-z0-9]*", key)).upper(): value
        for key, value in sorted(outputs.items())
        if _SETTING.fullmatch(key)
    }


def as_exports(outputs: Mapping[str, str]) -> str:
    """Return the settings as a shell takes them."""
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables(outputs).items())


def as_toml(outputs: Mapping[str, str]) -> str:
    """Return the settings as `everturn.toml` has them."""
    lines = []
    for name, value in variables(outputs).items():
        text = value if value in ("true", "false") else json.dumps(value)
        lines.append(f"{name.removeprefix('EVERTURN_').lower()} = {text}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
