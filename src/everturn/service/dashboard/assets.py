"""The files that pages are made up with: one style sheet, one script, one icon. Read once, named by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

_STYLES = (
    ("everturn.conversations", "templates/tokens.css"),
    ("everturn.service.dashboard", "static/everturn.css"),
    ("everturn.conversations", "templates/turns.css"),
    ("everturn.service.dashboard", "static/charts.css"),
    ("everturn.service.dashboard", "static/session.css"),
)
_YEAR_S = 31_536_000


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that pages refer to.

    Attributes:
        name: Its name.
        media_type: What it is.
        data: What is in it.
        digest: Tells it from what was in it before.
    """

    name: str
    media_type: str
    data: bytes
    digest: str

    @property
    def address(self) -> str:
        """Where it is: another place whenever it changes, so that it can be kept for ever."""
        return f"/static/{self.name}?v={self.digest}"


@cache
def assets() -> Mapping[str, Asset]:
    """Return all of them, by `style`, `script` and `icon`."""
    ours = "everturn.service.dashboard"
    return {
        "style": _asset("everturn.css", "text/css", b"\n".join(_read(*each) for each in _STYLES)),
        "script": _asset("everturn.js", "text/javascript", _read(ours, "static/everturn.js")),
        "icon": _asset("everturn.svg", "image/svg+xml", _read(ours, "static/everturn.svg")),
    }


async def serve_asset(request: Request) -> Response:
    """Answer with one of them. Whoever names the one that is there now may keep it; anybody else asks again."""
    found = next((each for each in assets().values() if each.name == request.path_params["name"]), None)
    if found is None:
        return PlainTextResponse("there is no such file\n", 404)
    keep = f"public, max-age={_YEAR_S}, immutable" if request.query_params.get("v") == found.digest else "no-cache"
    headers = {"Cache-Control": keep, "ETag": f'"{found.digest}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(found.data, media_type=found.media_type, headers=headers)


def _asset(name: str, media_type: str, data: bytes) -> Asset:
    return Asset(name, media_type, data, hashlib.sha256(data).hexdigest()[:16])


def _read(package: str, path: str) -> bytes:
    return (files(package) / path).read_bytes()
