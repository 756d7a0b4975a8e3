"""A real S3 server on loopback for tests and demos: moto's, in this process.

As a command, it runs another command with the `AWS_*` variables set:
`python -m everturn.testing -- everturn demo --store s3://everturn-demo/runs`. It needs moto and boto3
(`pip install 'moto[s3]' flask flask-cors boto3`).
"""

from __future__ import annotations

import http.client
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from threading import Thread
from typing import Any, Self
from urllib.parse import urlsplit

from everturn.errors import Invalid
from everturn.settings import inherited_environment

REGION = "us-east-1"

_NOT_STARTED = 127  # as a shell says it
_numbers = count(1)  # moto keeps its buckets by process, not by server


@dataclass(frozen=True)
class LoopbackS3:
    """A running server.

    Attributes:
        url: Where it listens.
        environment: The variables that make AWS clients use it.
    """

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make AWS clients use it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "loopback",
            "AWS_SECRET_ACCESS_KEY": "loopback-secret",
            "AWS_REGION": REGION,
        }

    @classmethod
    @contextmanager
    def start(cls, wrap: Any = None) -> Iterator[Self]:
        """Run a server until the block ends.

        Args:
            wrap: A WSGI middleware around the server, to make it misbehave.

        Raises:
            Invalid: moto's server is not installed.
        """
        try:
            from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app  # noqa: PLC0415
            from werkzeug.serving import make_server  # noqa: PLC0415
        except ImportError as error:
            hint = "pip install 'moto[s3]' flask flask-cors boto3"
            raise Invalid(f"an S3 server on loopback needs {error.name}", hint=hint) from None

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        app: Any = DomainDispatcherApplication(create_backend_app)
        server = make_server("127.0.0.1", 0, wrap(app) if wrap else app, threaded=True)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield cls(f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def create_bucket(self, name: str) -> str:
        """Make a bucket and return its name.

        Raises:
            RuntimeError: The server does not make it.
        """
        server = http.client.HTTPConnection(urlsplit(self.url).netloc)  # it takes long to make a client of boto3
        with closing(server):
            server.request("PUT", f"/{name}")
            answer = server.getresponse()
            if answer.status != HTTPStatus.OK:
                raise RuntimeError(f"the server makes no bucket {name}: {answer.status} {answer.read()!r}")
        return name

    def fresh_bucket(self) -> str:
        """Make a bucket that nobody else uses and return its name."""
        return self.create_bucket(f"bucket-{next(_numbers)}")

    def client(self) -> Any:
        """Return a boto3 client of the server."""
        import boto3  # noqa: PLC0415

        variables = self.environment
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        )


def main(arguments: list[str]) -> int:
    """Run a command beside a server. Buckets that its `s3://` arguments name are made first.

    Returns:
        The command's exit code.
    """
    command = arguments[1:] if arguments[:1] == ["--"] else arguments
    if not command:
        print("usage: python -m everturn.testing -- COMMAND [ARGUMENT ...]", file=sys.stderr)  # noqa: T201
        return 2
    try:
        return _run(command)
    except Invalid as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2


def _run(command: list[str]) -> int:
    with LoopbackS3.start() as server:
        for bucket in {urlsplit(word).netloc for word in command if word.startswith("s3://")}:
            server.create_bucket(bucket)
        try:
            return subprocess.call(command, env={**inherited_environment(), **server.environment})
        except OSError as error:
            print(f"error: {command[0]} cannot be started: {error.strerror}", file=sys.stderr)  # noqa: T201
            return _NOT_STARTED
