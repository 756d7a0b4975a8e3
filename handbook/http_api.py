"""The reference of the HTTP API, from the OpenAPI document of the service's app."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from everturn.runtime import open_transcripts
from everturn.service.offices import Admin
from everturn.service.parts import Parts
from everturn.service.sweeping import DailySweep
from everturn.service.views.desk import Desk
from everturn.service.web.app import make_app
from everturn.settings import Settings
from handbook.docstrings import parse
from handbook.markdown import code, one_line, page, prose, table

_ABOUT = """From the OpenAPI document of `everturn serve`, which it serves as `/api/openapi.json`. There is more about
[what the values mean, and how old an answer is](../http-api.md), [webhooks](../webhooks.md) and
[admin requests](../service.md)."""


def document() -> dict[str, Any]:
    """Return the OpenAPI document of a service that has everything."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        # Its own, whatever the environment says: a store in use is none of a reference's business.
        own = {"store": (state / "store").as_uri(), "registry": f"sqlite://{state}/registry.db"}
        parts = Parts.open(Settings.load(state=state, serve_port=0, **own))
        try:
            open_transcripts(parts.settings, "reference")
            desk = Desk(parts)
            found: dict[str, Any] = make_app(parts, desk, office=Admin(parts, DailySweep.of(parts))).openapi()
        finally:
            parts.close()
    return found


def http_api() -> str:
    """Return the page."""
    found = document()
    pieces = [
        "# HTTP API",
        _ABOUT,
        "## Requests",
    ]
    for path, item in found["paths"].items():
        for method, operation in item.items():
            pieces += _operation(method.upper(), path, operation)
    pieces.append("## Bodies")
    for name, schema in sorted(found["components"]["schemas"].items()):
        pieces += _schema(name, schema)
    return page(*pieces)


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### {code(f'{method} {path}')}"
    yield prose(parse(operation.get("description") or operation.get("summary", "")).text)
    yield table(
        ("parameter", "in", "type", "default", "meaning"),
        (
            (
                code(each["name"]),
                each["in"] + (", required" if each.get("required") else ""),
                _type(each["schema"]),
                code(each["schema"]["default"]) if each["schema"].get("default") not in (None, "") else "",
                prose(each.get("description", each["schema"].get("description", ""))),
            )
            for each in operation.get("parameters", [])
        ),
    )
    body = operation.get("requestBody", {}).get("content", {})
    yield " ".join(f"Body: {code(media)}, {_type(each.get('schema', {}))}." for media, each in body.items())
    yield table(
        ("status", "meaning", "body"),
        (
            (
                status,
                _meaning(status, answer),
                ", ".join(
                    f"{code(media)} {_type(each.get('schema', {}))}"
                    for media, each in answer.get("content", {}).items()
                ),
            )
            for status, answer in operation["responses"].items()
        ),
    )


def _meaning(status: str, answer: dict[str, Any]) -> str:
    """Return what is said of a response, unless it is what HTTP says of it anyway."""
    said = one_line(answer.get("description", ""))
    return "" if said in (HTTPStatus(int(status)).phrase, "Successful Response") else prose(said)


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"### {code(name)}"
    doc = parse(schema.get("description", ""))
    meanings = dict(doc.sections.get("Attributes", []))
    yield prose(doc.text)
    required = schema.get("required", [])
    if "properties" not in schema:
        yield _type(schema)
    yield table(
        ("field", "type", "", "meaning"),
        (
            (
                code(field),
                _type(each),
                "" if field in required else "may be missing",
                prose(one_line(each.get("description", "") or meanings.get(field, ""))),
            )
            for field, each in schema.get("properties", {}).items()
        ),
    )


def _type(schema: dict[str, Any]) -> str:
    """Return what a value may be, in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{code(name)}](#{name.lower()})"
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(_type(each) for each in schema[several]))
    if "enum" in schema or "const" in schema:
        return ", ".join(code(each) for each in schema.get("enum", [schema.get("const")]))
    return _plain_type(schema)


def _plain_type(schema: dict[str, Any]) -> str:
    kind = schema.get("type", "anything")
    if kind == "array" and "prefixItems" in schema:
        return f"list of {', '.join(_type(each) for each in schema['prefixItems'])}"
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object with values of {_type(schema['additionalProperties'])}"
    return kind if isinstance(kind, str) else " or ".join(kind)
