"""`everturn credentials`: what a worker needs that is to hold the rights of one work item, and no others."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from everturn.cli.options import JsonOption, RegistryOption, StoreOption
from everturn.cli.output import json_line, print_json, printing
from everturn.cli.work import work_item
from everturn.errors import Invalid
from everturn.log.roles import Assignment
from everturn.log.stores import role_of
from everturn.registry.opening import table_name
from everturn.settings import Settings
from everturn.workdirs import located


class Format(StrEnum):
    """How credentials are printed."""

    ENV = "env"
    PROCESS = "process"


def command(  # one parameter for each option
    agent: Annotated[str | None, typer.Option(help="Who works on it.")] = None,
    repo: Annotated[str | None, typer.Option(help="The repository: a URL or a path.")] = None,
    issue: Annotated[str | None, typer.Option(help="The issue to work on.")] = None,
    task: Annotated[str | None, typer.Option(help="The id of a task, in place of an issue.")] = None,
    store: StoreOption = None,
    registry: RegistryOption = None,
    form: Annotated[
        Format, typer.Option("--format", help="For a shell, or as credential_process of an AWS profile.")
    ] = Format.ENV,
    as_json: JsonOption = False,
) -> None:
    """Print credentials for one work item: its transcripts in the store, and its row of a registry in DynamoDB.

    They last an hour at most. Whoever has them needs no session_role.
    """
    settings = Settings.load(store=store, registry=registry)
    work = located(work_item(agent, repo, issue, task))
    role = role_of(settings.store_url(), settings)
    if role is None:
        raise Invalid(
            "there is no role to assume: session_role is not set",
            hint="set it to the ARN of a role that may be assumed for one task (docs/credentials.md)",
        )
    policy = role.policy(work.key, table_name(settings.registry_url()))
    given = role.assume(Assignment(work.key, work.agent, work.repo), policy)
    expires = given["Expiration"].isoformat()
    if as_json:
        print_json({"work": work.key, "role": role.arn, "expires": expires, "environment": _environment(given)})
        return
    with printing():
        sys.stdout.write(_as_process(given, expires) if form is Format.PROCESS else _as_shell(given))


def _environment(given: Any) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
        "AWS_SESSION_TOKEN": given["SessionToken"],
        "EVERTURN_SESSION_ROLE": "null",  # of a configuration file, too: these may assume nothing further
        "EVERTURN_SWEEP_ON_START": "false",  # it looks at all rows, which would be refused
    }


def _as_shell(given: Any) -> str:
    """Return lines for `eval`. A profile would go before the keys."""
    exports = (f"export {name}={shlex.quote(value)}" for name, value in _environment(given).items())
    return "\n".join(("unset AWS_PROFILE", *exports, ""))


def _as_process(given: Any, expires: str) -> str:
    keys = {name: given[name] for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")}
    return json_line({"Version": 1, **keys, "Expiration": expires}) + "\n"
