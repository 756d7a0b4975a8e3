"""The servers, once for each process of tests, and stores on them that others have filled."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import psycopg
import pytest

from everturn.testing import LoopbackS3
from imports.adapters import Adapter, PostgresAdapter, RedisAdapter, S3Adapter
from imports.servers import Server, postgres_server, postgres_url, redis_server

_numbers = count(1)


@pytest.fixture(scope="session")
def redis_place() -> Iterator[Server]:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_place() -> Iterator[Server]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def on_s3(s3_server: LoopbackS3, monkeypatch: pytest.MonkeyPatch) -> S3Adapter:
    import boto3  # noqa: PLC0415

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return S3Adapter(boto3.Session().client("s3"), s3_server.fresh_bucket())


@pytest.fixture
def on_redis(redis_place: Server) -> Iterator[RedisAdapter]:
    adapter = RedisAdapter(redis_place)
    yield adapter
    adapter.client.flushall()
    adapter.client.close()


@pytest.fixture
def database(postgres_place: Server) -> Iterator[str]:
    """A database of the test's own."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgres_url(postgres_place), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield name
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def on_postgres(postgres_place: Server, database: str) -> Iterator[PostgresAdapter]:
    adapter = PostgresAdapter(postgres_place, database)
    yield adapter
    adapter.close()


@pytest.fixture
def on_postgres_of_typescript(postgres_place: Server, database: str) -> Iterator[PostgresAdapter]:
    adapter = PostgresAdapter(postgres_place, database, typescript=True)
    yield adapter
    adapter.close()


@pytest.fixture(
    params=[
        "s3",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("redis", "postgres", "postgres_of_typescript")),
    ]
)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    """Each kind of store in turn."""
    found: Adapter = request.getfixturevalue(f"on_{request.param}")
    return found
