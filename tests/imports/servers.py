"""Real servers on loopback: Redis and PostgreSQL."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import redis

from polling import wait_until

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".tools"
SILENT: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
# PostgreSQL does not run as root.
NOBODY: Any = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


@dataclass(frozen=True)
class Server:
    """Where a server listens, and whose password it knows."""

    port: int
    password: str


@contextmanager
def redis_server() -> Iterator[Server]:
    """Run Redis until the block ends. It keeps everything in memory."""
    found = shutil.which("redis-server") or shutil.which("redis-server", path=TOOLS / "redis")
    assert found, "redis-server is missing; get it with: make redis"
    server = Server(_free_port(), secrets.token_hex(8))
    options = {"bind": "127.0.0.1", "port": server.port, "requirepass": server.password, "save": "", "databases": 2}
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    environment = {"LD_LIBRARY_PATH": str(TOOLS / "redis")}

    def answers() -> bool:
        try:
            with redis.Redis(port=server.port, password=server.password) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    with tempfile.TemporaryDirectory() as folder, _running([found, *arguments], environment, folder):
        wait_until(answers, "Redis answers")
        yield server


@contextmanager
def postgres_server() -> Iterator[Server]:
    """Run PostgreSQL until the block ends, as somebody who is not root."""
    installed = [*Path("/usr/lib/postgresql").glob("*/bin"), *TOOLS.glob("postgres/usr/lib/postgresql/*/bin")]
    programs = next((each for each in installed if (each / "initdb").exists()), None)
    assert programs, "PostgreSQL is missing; get it with: make postgres"
    server = Server(_free_port(), secrets.token_hex(8))
    libraries = ":".join(str(each) for each in TOOLS.glob("postgres/usr/lib/*-linux-gnu"))
    environment = {"LD_LIBRARY_PATH": libraries, "LC_ALL": "C"}
    with tempfile.TemporaryDirectory() as folder:
        data, word = Path(folder, "data"), Path(folder, "password")
        word.write_text(server.password)
        if NOBODY:
            for each in (folder, word):
                shutil.chown(each, NOBODY["user"])
        made: list[Any] = [
            programs / "initdb",
            "--pgdata",
            data,
            "--username=ada",
            "--pwfile",
            word,
            "--auth=scram-sha-256",
        ]
        made += ["--encoding=UTF8", "--no-sync"]
        subprocess.run(made, env=environment, cwd=folder, check=True, **SILENT, **NOBODY)
        options = {
            "port": server.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
        }
        arguments = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with _running([programs / "postgres", "-D", data, *arguments], environment, folder, **NOBODY):
            wait_until(_connects(server), "PostgreSQL answers")
            yield server


def _connects(server: Server) -> Callable[[], bool]:
    def connects() -> bool:
        try:
            psycopg.connect(postgres_url(server)).close()
        except psycopg.OperationalError:
            return False
        return True

    return connects


def postgres_url(server: Server, database: str = "postgres", user: str = "ada", password: str = "") -> str:
    """Return the address of a database."""
    return f"postgresql://{user}:{password or server.password}@127.0.0.1:{server.port}/{database}"


def redis_url(server: Server, database: int = 0) -> str:
    """Return the address of a database."""
    return f"redis://:{server.password}@127.0.0.1:{server.port}/{database}"


@contextmanager
def _running(command: list[Any], environment: dict[str, str], folder: str, **owner: Any) -> Iterator[None]:
    with subprocess.Popen(command, env=environment, cwd=folder, **SILENT, **owner) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
