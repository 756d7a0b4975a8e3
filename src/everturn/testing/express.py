"""S3 Express One Zone on loopback: a server with directory buckets, and the way to it.

Clients reach a directory bucket at a name of its own below `amazonaws.com`, over TLS, and take no other address for
`CreateSession`. So nothing is bent here: they are told of a proxy, as in many a company network, which takes every
connection to the server on loopback, and of the authority that has signed its certificate.
"""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Self
from urllib.parse import urlsplit

from everturn.testing.certificates import Certificates
from everturn.testing.directory_buckets import DirectoryBuckets
from everturn.testing.s3 import LoopbackS3

REGION = "us-west-2"
ZONE = "usw2-az1"
_CHUNK = 1 << 16
_QUIET_S = 0.1


@dataclass(frozen=True)
class LoopbackExpress:
    """A running server with directory buckets.

    Attributes:
        server: The S3 server behind it, where a bucket of any kind is an ordinary one.
        proxy: The address of the way to it.
        authority: The file with the certificate of the authority to trust.
    """

    server: LoopbackS3
    proxy: str
    authority: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make S3 clients use it."""
        return {
            "AWS_ACCESS_KEY_ID": "loopback",
            "AWS_SECRET_ACCESS_KEY": "loopback-secret",
            "AWS_REGION": REGION,
            "HTTPS_PROXY": self.proxy,
            "SSL_CERT_FILE": str(self.authority),
        }

    @classmethod
    @contextmanager
    def start(cls, wrap: Any = None) -> Iterator[Self]:
        """Run a server until the block ends.

        Args:
            wrap: A WSGI middleware around the directory buckets, to make them misbehave.
        """

        def wrapped(app: Any) -> Any:
            buckets = DirectoryBuckets(app)
            return _Either(wrap(buckets) if wrap else buckets, app)

        with tempfile.TemporaryDirectory() as folder, LoopbackS3.start(wrap=wrapped) as server:
            made = Certificates.make(Path(folder), [f"*.s3express-{ZONE}.{REGION}.amazonaws.com"])
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(made.server, made.key)
            with _Proxy(context, server.url) as proxy:
                yield cls(server, proxy.url, made.authority)

    def create_bucket(self, base: str) -> str:
        """Make a directory bucket and return its whole name."""
        return self.server.create_bucket(f"{base}--{ZONE}--x-s3")

    def fresh_bucket(self) -> str:
        """Make a directory bucket that nobody else uses and return its name."""
        return self.create_bucket(self.server.fresh_bucket())


class _Either:
    """Directory buckets for those who come to their address; the server itself for who makes the buckets."""

    def __init__(self, buckets: Any, app: Any) -> None:
        self._buckets = buckets
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Answer a request."""
        inside = environ.get("HTTP_HOST", "").startswith("127.0.0.1")
        return (self._app if inside else self._buckets)(environ, start_response)


class _Proxy(socketserver.ThreadingTCPServer):
    """A proxy for HTTPS that ends every connection at one HTTP server, whatever host was asked for."""

    daemon_threads = True
    request_queue_size = 128  # whoever finds no place in the queue tries again after a whole second

    def __init__(self, context: ssl.SSLContext, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.context = context
        self.target = (str(urlsplit(target).hostname), int(urlsplit(target).port or 0))
        self.stopping = False
        self._thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping = True
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Tunnel(socketserver.BaseRequestHandler):
    """One connection."""

    server: _Proxy

    def handle(self) -> None:
        """Carry bytes both ways until one side hangs up."""
        greeting = b""
        while not greeting.endswith(b"\r\n\r\n"):
            if not (read := self.request.recv(1)):
                return
            greeting += read
        self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with (
            contextlib.suppress(OSError),
            self.server.context.wrap_socket(self.request, server_side=True) as outer,
            socket.create_connection(self.server.target) as inner,
        ):
            for side in (outer, inner):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or small writes wait for each other
            while self._carry(outer, inner):
                pass

    def _carry(self, outer: ssl.SSLSocket, inner: socket.socket) -> bool:
        ready = [outer] if outer.pending() else select.select([outer, inner], [], [], _QUIET_S)[0]
        for side in ready:
            data = side.recv(_CHUNK)
            if not data:
                return False
            (inner if side is outer else outer).sendall(data)
        return not self.server.stopping
