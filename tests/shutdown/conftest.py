"""Stages for tests of how runs end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from everturn.testing import LoopbackS3, kill_machine
from polling import processes_below
from registry.dynamo import Dynamo
from shutdown.proxy import Proxy
from shutdown.stage import GRACE_S, TTL_S, Stage

MakeStage = Callable[..., Stage]

SHORT = {
    "EVERTURN_CLAIM_TTL_S": f"{TTL_S:g}",
    "EVERTURN_CLAIM_WAIT_S": "30",
    "EVERTURN_APPEND_DEADLINE_S": "1.5",
    "EVERTURN_RETRY_DEADLINE_S": "2",
    "EVERTURN_SHUTDOWN_GRACE_S": f"{GRACE_S:g}",
}


@pytest.fixture
def make_stage(tmp_path: Path, s3_server: LoopbackS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeStage]:
    """Make a stage whose store is on S3, behind a proxy."""
    with ExitStack() as stack:

        def make(moment: str = "", **more: str) -> Stage:
            for name, value in s3_server.environment.items():
                monkeypatch.setenv(name, value)
            proxy = stack.enter_context(Proxy.to(s3_server.url))
            shared = {
                **s3_server.environment,
                "AWS_ENDPOINT_URL": proxy.url,
                "EVERTURN_STORE": f"s3://{s3_server.fresh_bucket()}/runs",
                "EVERTURN_REGISTRY": f"sqlite://{tmp_path / 'registry.db'}",
                **SHORT,
                **more,
            }
            stage = Stage(tmp_path / "stage", shared, proxy, moment)
            stack.enter_context(stage.model.serve())
            return stage

        yield make
        for pid in processes_below(tmp_path / "stage"):  # of a test that has failed
            kill_machine(pid)


@pytest.fixture(scope="module")
def dynamo() -> Iterator[Dynamo]:
    with Dynamo.start() as server:
        yield server
