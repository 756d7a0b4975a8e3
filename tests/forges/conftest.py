"""Each test that asks for a `sender` is run with every forge."""

from __future__ import annotations

import pytest

from everturn.forges import FORGES, Forge
from forges.senders import SENDERS, Sender


@pytest.fixture(params=SENDERS, ids=lambda each: each.name)
def sender(request: pytest.FixtureRequest) -> Sender:
    assert isinstance(request.param, Sender)
    return request.param


@pytest.fixture
def forge(sender: Sender) -> Forge:
    return FORGES[sender.name]
