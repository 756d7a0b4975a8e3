"""Who may ask for what: the read token, and the admin token.

There are two, for two doors. Whoever has the admin token can do harm, so that it opens nothing but admin requests: it
has no business in a browser, which would send it along by itself from then on, and elsewhere nobody can try it out.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode
from ipaddress import ip_address
from typing import Literal

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from everturn.errors import EverturnError
from everturn.service.web.problems import explain
from everturn.settings import Settings
from everturn.telemetry import Metrics, get_logger

Door = Literal["read", "admin"]

CHALLENGES: dict[Door, str] = {
    "read": 'Basic realm="Everturn", charset="UTF-8", Bearer realm="Everturn"',
    "admin": 'Bearer realm="Everturn admin"',
}

_OPEN = ("/healthz", "/readyz")  # they tell nothing but how the process is
_SIGNED = "/webhooks/"  # each request there is signed by itself
_ADMIN = "/admin/"
_TRACES_OF_PROXIES = ("forwarded", "via", "x-real-ip")


class Refused(EverturnError):
    """A request did not bring what opens the door.

    Args:
        status: 401: another token could open it. 403: none can.
        door: Which door.
        message: See `EverturnError`.
        hint: See `EverturnError`.
    """

    def __init__(self, status: int, door: Door, message: str, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.door = door

    @property
    def headers(self) -> dict[str, str]:
        """What the response has to say besides."""
        return {"www-authenticate": CHALLENGES[self.door]} if self.status == 401 else {}


class Doorkeeper:
    """Checks tokens. Those that do not fit are counted and logged, never shown.

    Args:
        settings: They hold the tokens.
        metrics: What is counted.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._read_token = settings.read_token
        self._admin_token = settings.admin_token
        self._admin_remote = settings.admin_remote
        self._metrics = metrics
        self._log = get_logger()

    def check_reader(self, headers: Headers, client: str | None) -> None:
        """Return if a request may see what there is to see.

        Args:
            headers: Its headers.
            client: The address it came from.

        Raises:
            Refused: It brought no token, or another one.
        """
        if self._read_token is None:
            return
        given = _bearer(headers) or _password(headers)
        if given is None or not _equal(given, self._read_token):
            hint = "send the read token as a bearer token, or as the password of any user"
            message = "the read token is missing or wrong"
            if given is None:  # a browser sends nothing before it is asked to
                raise Refused(401, "read", message, hint=hint)
            raise self._refused(401, "read", client, message, hint)

    def check_admin(self, headers: Headers, client: str | None) -> None:
        """Return if a request may change something.

        Args:
            headers: Its headers.
            client: The address it came from.

        Raises:
            Refused: Nobody may; or it came from elsewhere; or it brought no token, or another one.
        """
        if self._admin_token is None:
            raise self._refused(403, "admin", client, "admin is off", "set EVERTURN_ADMIN_TOKEN to turn it on")
        if not self._admin_remote and not _is_near(client, headers):
            hint = "ask from the service's own machine, past every proxy, or set admin_remote"
            raise self._refused(403, "admin", client, "admin requests have to come from this machine", hint)
        given = _bearer(headers)
        if given is None or not _equal(given, self._admin_token):
            hint = "send it in the header Authorization: Bearer, a space, and the token"
            raise self._refused(401, "admin", client, "the admin token is missing or wrong", hint)

    def _refused(self, status: int, door: Door, client: str | None, message: str, hint: str) -> Refused:
        self._metrics.access_refused.labels(door).inc()
        if door == "admin":
            self._metrics.admin_calls.labels("refused").inc()
        self._log.warning("access_refused", door=door, client=client, reason=message)
        return Refused(status, door, message, hint=hint)


class Doors:
    """Lets in who may come in. What is neither open nor behind a door of its own is for readers: no new path is open
    by accident.

    Args:
        app: What works at requests.
        keeper: Checks them.
    """

    def __init__(self, app: ASGIApp, keeper: Doorkeeper) -> None:
        self._app = app
        self._keeper = keeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        path = scope["path"]
        client = scope["client"][0] if scope.get("client") else None
        try:
            if path.startswith(_ADMIN):
                self._keeper.check_admin(Headers(scope=scope), client)
            elif path not in _OPEN and not path.startswith(_SIGNED):
                self._keeper.check_reader(Headers(scope=scope), client)
        except Refused as error:
            response = explain(error.status, error.message, error.hint, path=path, headers=error.headers)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _is_near(client: str | None, headers: Headers) -> bool:
    """Tell whether a request was made on this machine, by whoever wants something, and not handed on by a proxy."""
    handed_on = any(name in _TRACES_OF_PROXIES or name.startswith("x-forwarded-") for name in headers)
    return not handed_on and client is not None and is_loopback(client)


def is_loopback(address: str) -> bool:
    """Tell whether an address, or `localhost`, can be reached from this machine only."""
    if address.lower() == "localhost":
        return True
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool(found.is_loopback or (mapped is not None and mapped.is_loopback))


def _bearer(headers: Headers) -> bytes | None:
    return _credentials(headers, "bearer")


def _password(headers: Headers) -> bytes | None:
    """Return the password of Basic authentication; whose it is makes no difference."""
    given = _credentials(headers, "basic")
    if given is None:
        return None
    try:
        _, colon, password = b64decode(given, validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return b""
    return password if colon else b""


def _credentials(headers: Headers, scheme: str) -> bytes | None:
    """Return what was sent by a scheme; nothing, if something else was sent, too."""
    sent = headers.getlist("authorization")
    if len(sent) != 1:
        return b"" if sent else None
    said, _, given = sent[0].partition(" ")
    return given.strip().encode("latin-1") if said.lower() == scheme else None


def _equal(given: bytes, token: SecretStr) -> bool:
    return hmac.compare_digest(given, token.get_secret_value().encode("ascii"))
