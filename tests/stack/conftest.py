"""One stack for all tests of it: synthesized, deployed by CloudFormation, and reached through its outputs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from everturn.log.objects import run
from everturn.log.stores import admit, connect
from everturn.settings import Settings
from everturn.testing import LoopbackAws
from everturn.testing.aws import ACCOUNT
from stack.deployed import SERVER_PYTHON, STACK, Deployed, deploy, outputs_of, parse, settings_of, synthesize


@pytest.fixture(scope="session")
def aws() -> Iterator[LoopbackAws]:
    with LoopbackAws.start(SERVER_PYTHON, tls=True) as server:
        yield server


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("template")
    return synthesize(folder, service_principals=ACCOUNT, kms_key="new")


@pytest.fixture(scope="session")
def stack(aws: LoopbackAws, template: str) -> Deployed:
    deploy(aws, template)
    return made_of(aws, STACK)


def made_of(aws: LoopbackAws, name: str) -> Deployed:
    """Return a deployed stack, with a store in its bucket, as the service makes one."""
    outputs, settings = outputs_of(aws, name), parse(settings_of(aws, name, form="env"))
    assume = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": outputs["ServiceRoleArn"]}
    made = Deployed(aws, outputs, settings, aws.user(assume))
    with pytest.MonkeyPatch.context() as patch:
        become(patch, made.service())
        store = settings["EVERTURN_STORE"]
        run(admit(connect(store, Settings.load(session_role=None)), "setup", store))
    return made


def become(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> dict[str, str]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables
