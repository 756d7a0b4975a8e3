"""Whatever comes, there is an answer: what it says, `Invalid`, or `Denied`."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everturn.errors import Denied, Invalid
from everturn.forges import FORGES
from forges.senders import NOW, SECRET, SENDERS, SIGNING, Payload, Sender, Webhook, paths

HEADERS = sorted({name for sender in SENDERS for name in sender.send(sender.closed())[0]})
TEXTS = st.text(st.characters(), max_size=40)  # surrogates, too
JSONS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), 1 << 63) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def read(sender: Sender, headers: dict[str, str], body: bytes) -> None:
    with refused_well():
        delivery = FORGES[sender.name].read(headers, body)
        assert (delivery.happening is None) == bool(delivery.ignored)
        assert str(delivery).isprintable()
        if delivery.happening:
            orjson.dumps(delivery.happening.facts())


@contextmanager
def refused_well() -> Iterator[None]:
    try:
        yield
    except Invalid as error:
        if not error.message.isprintable() or len(error.message) > 200:
            pytest.fail(f"what was refused says {error.message!r}")


def any_bytes(sender: Sender, data: st.DataObject) -> None:
    event = data.draw(st.sampled_from([sender.closed().event, sender.issue.event, sender.deletions[0].event]))
    headers, _ = sender.send(Webhook(event, {}))
    headers |= data.draw(st.dictionaries(st.sampled_from(HEADERS), TEXTS, max_size=4))
    body = data.draw(st.binary(max_size=200) | JSONS.map(orjson.dumps))
    read(sender, headers, body)
    with pytest.raises(Denied):
        FORGES[sender.name].verify(headers, body, [SECRET + "!", SIGNING], NOW)


def any_change(sender: Sender, data: st.DataObject) -> None:
    webhook = data.draw(st.sampled_from([sender.closed(), sender.issue, *sender.deletions]))
    payload: Payload = copy.deepcopy(webhook.payload)
    for path in data.draw(st.lists(st.sampled_from(list(paths(webhook.payload))), max_size=3)):
        inner: Any = payload
        for name in path[:-1]:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner[path[-1]] = data.draw(JSONS | st.text())
    try:
        request = sender.send(Webhook(webhook.event, payload))
    except TypeError:  # orjson does not write an unpaired surrogate; those are in test_reading.py
        return
    read(sender, *request)


QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LONG = settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(st.data())
def test_bytes_and_headers_of_any_kind(sender: Sender, data: st.DataObject) -> None:
    any_bytes(sender, data)


@QUICK
@given(st.data())
def test_payloads_with_anything_in_place_of_anything(sender: Sender, data: st.DataObject) -> None:
    any_change(sender, data)


@pytest.mark.slow
@LONG
@given(st.data())
def test_more_bytes_and_headers_of_any_kind(sender: Sender, data: st.DataObject) -> None:
    any_bytes(sender, data)


@pytest.mark.slow
@LONG
@given(st.data())
def test_more_payloads_with_anything_in_place_of_anything(sender: Sender, data: st.DataObject) -> None:
    any_change(sender, data)
