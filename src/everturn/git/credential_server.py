"""Answers git's questions for credentials, in this process and in every process below an agent, on a Unix socket.

The program that git starts (`credential_helper.py`) only carries messages. Who gets what is decided here, for each
request anew: the URL has to be in the table, and git has to be sure of whom it talks to. So a setting that somebody
left in a repository or a home folder can keep git from working, but cannot make a token go elsewhere.
"""

from __future__ import annotations

import contextvars
import hmac
import json
import os
import selectors
import shlex
import socket
import stat
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

from everturn.clock import Clock, Ids, SystemClock
from everturn.errors import EverturnError, Invalid
from everturn.git import credential_helper
from everturn.git.credential_helper import KEY, SOCKET
from everturn.git.credentials import Credentials
from everturn.git.runner import with_config
from everturn.telemetry import get_logger

REQUEST_LIMIT_BYTES = 65536
REQUEST_TIMEOUT_S = 10.0
AT_ONCE = 64
ADDRESS_LIMIT_BYTES = 103  # 108 on Linux, 104 elsewhere, with a zero at the end

_TRUE = {"true", "yes", "on", "1"}
_AUTHORITIES = {"http.sslcainfo": "GIT_SSL_CAINFO", "http.sslcapath": "GIT_SSL_CAPATH"}
_CERTIFICATES = ("GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "NIX_SSL_CERT_FILE")
_WEAKENING = ("http.sslcipherlist", "GIT_SSL_CIPHER_LIST", "GIT_SSL_NO_VERIFY")
_UNKNOWN = "it cannot be found out how git is set up"
_COMMAND = "!" + shlex.join([sys.executable, "-I", "-S", credential_helper.__file__])


class CredentialServer:
    """Gives credentials to git on this machine. May be used from any thread.

    Only a process of this user that was given `environment` or `config`, or can read it elsewhere, gets an answer.
    What it may ask for is what the table names.

    Args:
        credentials: Who may have what.
        folder: Where the socket is made; a folder that only this user can enter. It is made if it is not there.
        ca_file: The certificates that count for all of the table's URLs, in place of the machine's; what
            `GIT_SSL_CAINFO` names if not given.
        environment: The variables of this process. Those that name certificates may be the same in git's.
        clock: To give up on clients by.
        ids: Makes the key and the socket's name.
    """

    def __init__(
        self,
        credentials: Credentials,
        folder: Path,
        *,
        ca_file: Path | None = None,
        environment: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
    ) -> None:
        self._credentials = credentials
        self._folder = folder.absolute()
        inherited = environment or {}
        self._ca_file = inherited.get("GIT_SSL_CAINFO") or None if ca_file is None else str(ca_file.absolute())
        self._trust = _Trust(self._ca_file, inherited)
        self._clock = clock or SystemClock()
        self._ids = ids or Ids()
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(AT_ONCE)
        self._listening: _Listener | None = None
        self._log = get_logger()

    def open(self) -> None:
        """Begin to answer, in a thread. Does nothing if it has begun, or if there is nothing to give.

        Raises:
            Invalid: Others may enter the folder, or no socket can be made in it.
        """
        with self._lock:
            if self._listening is not None or not self._credentials:
                return
            _make_private(self._folder)
            path = self._folder / f"git-{self._ids.token()}"
            self._listening = _Listener(path, self._ids.random_bytes(32).hex(), self._serve)

    def close(self) -> None:
        """Answer no more, and remove the socket. What was given to git with it is worth nothing from then on."""
        with self._lock:
            listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()

    def config(self) -> dict[str, str]:
        """Return the configuration that makes git ask here; empty if there is nothing to give. Opens the socket.

        It concerns the URLs of the table only; for others git does what it did before. It has to reach git by its
        environment (`with_config`): the key does not belong in a file or an argument.

        Raises:
            Invalid: See `open`.
        """
        self.open()
        with self._lock:
            listening = self._listening
        if listening is None:
            return {}
        config = {SOCKET: str(listening.path), KEY: listening.key}
        for url in self._credentials.urls:
            # One key with a slash, one without: to git both are this URL. The first takes away all helpers that were
            # named before, whoever named them.
            config[f"credential.{url}.helper"] = ""
            config[f"credential.{url}/.helper"] = _COMMAND
            config[f"credential.{url}.useHttpPath"] = "true"
            config[f"http.{url}.followRedirects"] = "false"
            config[f"http.{url}.sslVerify"] = "true"
            if self._ca_file is not None:
                config[f"http.{url}.sslCAInfo"] = self._ca_file
        return config

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the variables for an agent: every git that it starts, however far below, asks here.

        Args:
            base: The variables to add to. What it says to git as configuration stays, and comes before ours.

        Raises:
            Invalid: See `open`.
        """
        config = self.config()
        return with_config(config, base or {}) if config else dict(base or {})

    def _serve(self, connection: socket.socket, key: str) -> None:
        if not self._slots.acquire(blocking=False):
            connection.close()
            return
        context = contextvars.copy_context()
        try:
            threading.Thread(target=context.run, args=(self._answer, connection, key), daemon=True).start()
        except RuntimeError:  # no more threads for now: this client is hung up on, the next one may be heard
            connection.close()
            self._slots.release()

    def _answer(self, connection: socket.socket, key: str) -> None:
        try:
            with connection, suppress(OSError, ValueError, RecursionError):  # a bad client gets nothing
                request = self._receive(connection, key)
                connection.settimeout(REQUEST_TIMEOUT_S)
                connection.sendall(json.dumps(self._decide(request)).encode())
        finally:
            self._slots.release()

    def _receive(self, connection: socket.socket, key: str) -> dict[str, Any]:
        deadline_s = self._clock.elapsed() + REQUEST_TIMEOUT_S
        data = b""
        while not data.endswith(b"\n"):
            connection.settimeout(max(deadline_s - self._clock.elapsed(), 0.001))
            piece = connection.recv(65536)
            data += piece
            if not piece or len(data) > REQUEST_LIMIT_BYTES:
                raise ValueError("no request")
        request = json.loads(data)
        given = request.get("key") if isinstance(request, dict) else None
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(errors="replace"), key.encode()):
            raise ValueError("no request")
        return dict(request)

    def _decide(self, request: dict[str, Any]) -> dict[str, str]:
        attributes = _read(request.get("attributes"))
        if attributes is None:
            return {"reason": "git's request is not a plain one"}
        url = _url(attributes)
        if request.get("action") == "erase":
            self._credentials.forget(url, attributes.get("password"))
            return {}
        if request.get("action") != "get" or not self._credentials.covers(url):
            return {"reason": f"there are none for {attributes.get('host', '')!r} at this path"}
        objection = self._trust.objection(attributes["protocol"], request.get("settings"), request.get("environment"))
        if objection is not None:
            self._log.warning("git_credentials_refused", url=url, reason=objection)
            return {"reason": objection}
        try:
            found = self._credentials.ask(url)
        except EverturnError as error:
            self._log.warning("git_credentials_failed", url=url, error=str(error))
            return {"reason": str(error)}
        return {} if found is None else {"username": found.username, "password": found.password}


class _Trust:
    """Judges whether git can be sure of whom it talks to, by its settings for a URL and its variables.

    Args:
        ca_file: Certificates that may count in place of the machine's.
        inherited: The variables of the worker: git's may name the same certificates.
    """

    def __init__(self, ca_file: str | None, inherited: Mapping[str, str]) -> None:
        self._known = {name: {ca_file, inherited.get(name)} - {None} for name in _CERTIFICATES}

    def objection(self, scheme: str, settings: object, environment: object) -> str | None:
        """Return why git could be talking to somebody else than it thinks, or telling others; `None` if it cannot."""
        if not isinstance(environment, dict) or not isinstance(settings, list) or not settings:
            return _UNKNOWN
        groups = [_pairs(group) for group in [*settings, [[*pair] for pair in environment.items()]]]
        if None in groups:
            return _UNKNOWN
        *files, variables = [group for group in groups if group is not None]
        judge = self._of_http if scheme == "http" else self._of_https
        reasons = chain(_of_all(files, dict(variables)), *map(judge, [*files, variables]))
        return next(reasons, None)

    def _of_https(self, pairs: list[tuple[str, str]]) -> Iterator[str]:
        for key, value in pairs:
            if key == "http.sslverify" and value.lower() not in _TRUE:
                yield "http.sslVerify is off"
            elif key in _WEAKENING:
                yield f"{key} is set"
            elif value not in self._known.get(_AUTHORITIES.get(key, key), {value}):
                yield f"{key} names other certificates than those of the worker"

    def _of_http(self, pairs: list[tuple[str, str]]) -> Iterator[str]:
        for key, value in pairs:
            if key.lower().endswith("proxy") and value:
                yield f"{key} would send them to a proxy"
            elif key == "http.curloptresolve" and value:
                yield "http.curloptResolve would send them elsewhere"


def _of_all(files: list[list[tuple[str, str]]], variables: dict[str, str]) -> Iterator[str]:
    if variables.get("GIT_TRACE_REDACT", "1").lower() not in _TRUE:
        yield "GIT_TRACE_REDACT lets git write down what it sends"
    helpers = [value for pairs in files for key, value in pairs if key.endswith(".helper")]
    last = max((number for number, value in enumerate(helpers) if value == _COMMAND), default=len(helpers))
    if any(helpers[last + 1 :]):  # git tells every helper what worked; those before ours have been taken away
        yield "another credential helper would be told"


def _pairs(group: object) -> list[tuple[str, str]] | None:
    """Return pairs of texts as such; `None` if they are none."""
    if not isinstance(group, list):
        return None
    right = all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in group
    )
    return [(key, value) for key, value in group] if right else None


class _Listener:
    """A socket, and the thread that accepts on it."""

    def __init__(self, path: Path, key: str, serve: Any) -> None:
        self.path = path
        self.key = key
        self._serve = serve
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._wake, self._woken = socket.socketpair()
        try:
            with address_of(path) as address:
                self._socket.bind(address)
            self._socket.listen(AT_ONCE)  # at once: a socket at which nobody listens may be taken for a dead one
            path.chmod(0o600)
            self._socket.setblocking(False)
        except OSError as error:
            self._close_all()
            raise Invalid(
                f"no socket can be made in {path.parent}: {error.strerror or error}", hint="put `state` elsewhere"
            ) from None
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._accept,), name="git-credentials", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._wake.send(b"x")
        self._thread.join()
        self._close_all()
        self.path.unlink(missing_ok=True)

    def _close_all(self) -> None:
        for each in (self._socket, self._wake, self._woken):
            each.close()

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while all(key.fileobj is not self._woken for key, _ in selector.select()):
                try:
                    connection, _ = self._socket.accept()
                except OSError:  # it has gone, or there are no more descriptors for now
                    self._woken.settimeout(0.05)
                    with suppress(TimeoutError):
                        self._woken.recv(1, socket.MSG_PEEK)
                    continue
                self._serve(connection, self.key)


@contextmanager
def address_of(path: Path) -> Iterator[str]:
    """Yield an address for the socket at a path, there or still to be made, however long the path is.

    Raises:
        OSError: Its folder cannot be opened.
    """
    if len(os.fsencode(path)) <= ADDRESS_LIMIT_BYTES:
        yield str(path)
        return
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise Invalid(f"{folder} cannot be made: {error.strerror}", hint="put `state` elsewhere") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise Invalid(f"{folder} is open to others, so no credentials go through it", hint="chmod it to 0700")


def _read(given: object) -> dict[str, str] | None:
    """Return git's request by name; `None` if it could be read in two ways."""
    pairs = _pairs(given)
    if pairs is None or any(sign in value for _, value in pairs for sign in "\r\n\0"):
        return None
    names = [name for name, _ in pairs if not name.endswith("[]")]
    return dict(pairs) if len(names) == len(set(names)) else None


def _url(attributes: Mapping[str, str]) -> str:
    path = attributes.get("path", "")
    return f"{attributes.get('protocol', '')}://{attributes.get('host', '')}" + (f"/{quote(path)}" if path else "")
