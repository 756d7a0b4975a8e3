"""The socket that the service listens on. It is taken first: what is wrong with it is said at once."""

from __future__ import annotations

import errno
import socket

from everturn.errors import Invalid

BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that connections are taken on.

    Args:
        host: A name or an address of this machine; `0.0.0.0` or `::` for all of them.
        port: The port; 0: any that is free.

    Raises:
        Invalid: The host is unknown or not this machine, the port is taken, or not for us.
    """
    family, address = _resolve(host, port)
    is_for_all = address == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((address, port), family=family, backlog=BACKLOG, dualstack_ipv6=is_for_all)
    except OSError as error:
        raise _explained(error, host, port) from None


def address_of(listener: socket.socket) -> str:
    """Return the URL at which a socket is reached; by the loopback address if it is reached by all."""
    host, port = listener.getsockname()[:2]
    named = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # it is compared, not listened on
    return f"http://[{named}]:{port}" if ":" in named else f"http://{named}:{port}"


def _resolve(host: str, port: int) -> tuple[int, str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        hint = "name an address of this machine: 127.0.0.1, or 0.0.0.0 for all of them"
        raise Invalid(f"the host {host!r} is unknown", hint=hint) from None
    family, _, _, _, place = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, str(place[0])


def _explained(error: OSError, host: str, port: int) -> Invalid:
    where = f"{host}, port {port}"
    if error.errno == errno.EADDRINUSE:
        return Invalid(f"somebody else listens on {where}", hint="stop them, or choose another port with --port")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Invalid(f"not allowed to listen on {where}", hint="choose a port from 1024 on with --port")
    if error.errno == errno.EADDRNOTAVAIL:
        return Invalid(f"{host} is no address of this machine", hint="use 127.0.0.1, or 0.0.0.0 for all of them")
    return Invalid(f"cannot listen on {where}: {error.strerror or error}", hint="check --host and --port")
