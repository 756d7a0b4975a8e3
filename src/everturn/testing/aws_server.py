"""The server of `LoopbackAws`. It runs in another environment than ours, so it imports nothing of Everturn.

    python aws_server.py FD [CERTIFICATE KEY]

Serves on a socket that it was given, until its standard input ends: it does not outlive whoever started it.

ministack knows less of IAM than a policy for one task needs, so four rules are added, all as if a policy's `Version`
were `2012-10-17`; nothing else of it is changed:

- **Policy variables** in `Resource`, `NotResource` and the values of `String…` and `Arn…` conditions, with defaults
  (`${aws:PrincipalTag/team, 'none'}`). One without a value equals and resembles nothing. `${$}` is a `$`;
  `${*}` and `${?}` stay as they are. https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
- **`dynamodb:LeadingKeys`**: the partition keys that a request names; none for `Scan` and PartiQL.
  https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
- **`s3:if-none-match`, `s3:if-match`, `s3:ObjectCreationOperation`** of what writes an object.
  https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
- **`aws:PrincipalArn`** of a role's session is the role's ARN.
  https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html#condition-keys-principalarn
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

Context = dict[str, Any]
Resolve = Callable[[str], Any]

_VARIABLE = re.compile(r"\$\{\s*([\w-]+:[^,}]+?)\s*(?:,\s*'([^']*)'\s*)?\}")
_SESSION_OF_ROLE = re.compile(r"arn:[a-z-]+:sts::\d{12}:assumed-role/([^/]+)/.+")
_LIKE_NOTHING = "\0"  # no value and no name has it
_TAKES_VARIABLES = re.compile(r"(for(all|any)values?:)?(string|arn)", re.IGNORECASE)
_KEY_EQUALS = re.compile(r"([#\w.-]+)\s*=\s*(:\w+)")


def main() -> None:
    """Serve."""
    logging.disable(logging.WARNING)
    from hypercorn.asyncio import serve  # noqa: PLC0415
    from hypercorn.config import Config  # noqa: PLC0415
    from ministack.app import app  # noqa: PLC0415

    _add_rules()
    config = Config()
    config.bind = [f"fd://{int(sys.argv[1])}"]
    if sys.argv[2:]:
        config.certfile, config.keyfile = sys.argv[2:]
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it takes clients that just hang up for an error

    async def until_the_input_ends() -> None:
        await asyncio.to_thread(sys.stdin.read)
        if config.certfile:
            os._exit(0)  # or connections that clients have left open are waited for, half a minute each

    serving: Any = app
    asyncio.run(serve(serving, config, shutdown_trigger=until_the_input_ends))


def _add_rules() -> None:
    from ministack.core import iam_actions, iam_evaluator  # noqa: PLC0415

    first_match, conditions_met = iam_evaluator._first_match, iam_evaluator._conditions_met
    resolve_key = iam_evaluator._resolve_condition_key
    of_s3, of_dynamodb = iam_actions.s3_service_context, iam_actions.dynamodb_service_context

    def resolved(key: str, ctx: Any) -> Any:
        value = resolve_key(key, ctx)
        return _role_of(value) if key.lower() == "aws:principalarn" else value

    def matching(context: Any, statements: list[Any], effect: str) -> Any:
        resolve = partial(resolved, ctx=context)
        return first_match(context, [_with_resources(each, resolve) for each in statements], effect)

    def met(conditions: Any, context: Any) -> Any:
        return conditions_met(_with_values(conditions, partial(resolved, ctx=context)), context)

    def s3(action: str, query: Context | None, path: str = "", headers: Context | None = None) -> Context:
        return {**of_s3(action, query, path, headers), **_writing(action, query or {}, headers or {})}

    def dynamodb(body: bytes) -> Context:
        keys = _leading_keys(body)
        return {**of_dynamodb(body), **({"dynamodb:LeadingKeys": keys} if keys else {})}

    iam_evaluator._first_match, iam_evaluator._conditions_met = matching, met
    iam_evaluator._resolve_condition_key = resolved
    iam_actions.s3_service_context, iam_actions.dynamodb_service_context = s3, dynamodb


# --- Policy variables -------------------------------------------------------------------------------------------


def _with_resources(statement: Any, resolve: Resolve) -> Any:
    return replace(
        statement,
        resources=[_filled(text, resolve) for text in statement.resources],
        not_resources=[_filled(text, resolve) for text in statement.not_resources],
    )


def _with_values(conditions: Any, resolve: Resolve) -> Any:
    def filled(expected: Any) -> Any:
        values = expected if isinstance(expected, list) else [expected]
        return [_filled(value, resolve) if isinstance(value, str) else value for value in values]

    return {
        operator: {key: filled(expected) for key, expected in block.items()}
        if _TAKES_VARIABLES.match(operator) and isinstance(block, dict)
        else block
        for operator, block in (conditions or {}).items()
    }


def _filled(text: str, resolve: Resolve) -> str:
    values = [
        resolve(name) if default is None else _or_else(resolve(name), default) for name, default in _named(text)
    ]
    if not all(isinstance(value, str) for value in values):
        return _LIKE_NOTHING
    remaining = iter(values)
    return _VARIABLE.sub(lambda _: next(remaining), text).replace("${$}", "$")


def _named(text: str) -> list[tuple[str, str | None]]:
    return [(match[1], match[2]) for match in _VARIABLE.finditer(text)]


def _or_else(value: Any, default: str) -> Any:
    return default if value is None else value


# --- Who asks ---------------------------------------------------------------------------------------------------


def _role_of(arn: str) -> str:
    """Return the ARN of the role that a session is of; another principal's as it is."""
    from ministack.services import iam  # noqa: PLC0415

    match = _SESSION_OF_ROLE.fullmatch(arn)
    role = iam._roles.get(match[1]) if match else None
    return str(role["Arn"]) if role else arn


# --- What a request is about ------------------------------------------------------------------------------------


def _writing(action: str, query: Context, headers: Context) -> Context:
    if action != "s3:PutObject":
        return {}
    creates = "uploads" not in query and "partNumber" not in query
    given = {name: headers[name] for name in ("if-none-match", "if-match") if headers.get(name)}
    return {
        "s3:ObjectCreationOperation": str(creates).lower(),
        **{f"s3:{name}": text for name, text in given.items()},
    }


def _leading_keys(body: bytes) -> list[str]:
    try:
        request = json.loads(body or b"{}")
    except ValueError:
        return []
    if not isinstance(request, dict):
        return []
    return list(dict.fromkeys(_keys_named(request)))


def _keys_named(request: Context) -> Iterator[str]:
    """Yield each partition key, of one item, a query, a batch or a transaction."""
    if isinstance(request.get("TableName"), str):
        yield from _keys_in(request["TableName"], [request])
    for table, asked in (request.get("RequestItems") or {}).items():
        items = [{"Key": key} for key in asked["Keys"]] if isinstance(asked, dict) else _members(asked)
        yield from _keys_in(table, items)
    for member in _members(request.get("TransactItems") or []):
        yield from _keys_named(member)


def _members(items: list[Context]) -> list[Context]:
    return [member for item in items for member in item.values()]


def _keys_in(table: str, items: list[Context]) -> Iterator[str]:
    from ministack.services import dynamodb  # noqa: PLC0415

    schema = (dynamodb._tables.get(table.rpartition("/")[2]) or {}).get("KeySchema") or []
    partition = next((each["AttributeName"] for each in schema if each["KeyType"] == "HASH"), None)
    for item in items:
        value = {**item.get("Item", {}), **item.get("Key", {}), **_equal_to(item)}.get(partition)
        if isinstance(value, dict):
            yield from map(str, value.values())


def _equal_to(query: Context) -> Context:
    """Return the attributes for which a query asks for one value."""
    names, values = query.get("ExpressionAttributeNames") or {}, query.get("ExpressionAttributeValues") or {}
    asked = _KEY_EQUALS.findall(query.get("KeyConditionExpression") or "")
    return {names.get(name, name): values.get(value) for name, value in asked}


if __name__ == "__main__":
    main()
