"""Starting the S3 server of a benchmark, and talking to it about counts and buckets."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.counting import COUNTS_PATH
from everturn.testing.s3 import REGION, LoopbackS3

ROOT = Path(__file__).parents[1]
START_S = 30.0


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        url: Where it listens.
    """

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make AWS clients use it."""
        return {**LoopbackS3(self.url).environment, "AWS_DEFAULT_REGION": REGION}

    def make_bucket(self, name: str) -> str:
        """Make a bucket and return its name."""
        self._client.create_bucket(Bucket=name)
        return name

    def sizes(self, bucket: str) -> Iterator[tuple[str, int]]:
        """Yield the key and the size of every object in a bucket."""
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for item in page.get("Contents", ()):
                yield item["Key"], item["Size"]

    @cached_property
    def _client(self) -> Any:
        return LoopbackS3(self.url).client()

    def take_counts(self) -> dict[str, int]:
        """Return how many requests of each kind the server has had since it was last asked."""
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=START_S)
        try:
            connection.request("GET", COUNTS_PATH)
            counts: dict[str, int] = json.loads(connection.getresponse().read())
            return counts
        finally:
            connection.close()


@contextmanager
def serve(engine: str, python: str) -> Iterator[Server]:
    """Run a server in its own process, with its own Python, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        process = subprocess.Popen(
            [python, "-m", "bench.server", engine, str(port)],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "HOME": home, "TMPDIR": home, "SERVICES": "s3", "LOG_LEVEL": "ERROR"},
            stdin=subprocess.PIPE,
        )
        try:
            server = Server(f"http://127.0.0.1:{port}")
            _wait_until_it_answers(server, process)
            yield server
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_it_answers(server: Server, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_S
    while True:
        try:
            server.take_counts()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the S3 server did not start; is it installed? `make bench` does that") from None
            time.sleep(0.1)
