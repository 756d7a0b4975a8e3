"""The API's document is true: it has every route, and what is answered is what it says, whatever is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from everturn.runtime import open_transcripts
from everturn.service.offices import Admin
from everturn.service.parts import Parts
from everturn.service.sweeping import DailySweep
from everturn.service.views.desk import Desk
from everturn.service.web.app import make_app
from everturn.service.web.problems import is_for_programs
from served import ADMIN_TOKEN, READ_TOKEN, settings_at

QUIETLY = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    parts = Parts.open(settings_at(tmp_path_factory.mktemp("service"), read_token=READ_TOKEN, admin_remote=True))
    open_transcripts(parts.settings, "some-scope")  # there is a store, so that there can be a mirror
    desk = Desk(parts)
    desk.keep_up()
    yield make_app(parts, desk, office=Admin(parts, DailySweep.of(parts)), host="192.0.2.7")
    desk.stop()
    parts.close()


@pytest.fixture(scope="module")
def document(app: FastAPI) -> Any:
    import schemathesis  # noqa: PLC0415  # it takes longer to import than most of these files take to run

    headers = {"authorization": f"Bearer {READ_TOKEN}"}
    return schemathesis.openapi.from_asgi("/api/openapi.json", app, headers=headers)


def test_the_document_is_valid(document: Any) -> None:
    document.validate()


def test_the_document_has_every_route_for_programs(app: FastAPI) -> None:
    documented = {
        (method.upper(), path)
        for path, item in app.openapi()["paths"].items()
        for method in item
        if method != "servers"
    }
    routes = [each for each in iter_route_contexts(app.routes) if isinstance(each.original_route, APIRoute)]
    there = {(method, each.path_format) for each in routes for method in each.methods or ()}
    assert documented == there
    assert all(is_for_programs(path) for _, path in documented)


def test_every_operation_says_what_is_answered_when_something_is_wrong(app: FastAPI) -> None:
    for path, item in app.openapi()["paths"].items():
        for operation in item.values():
            refusals = {code: each for code, each in operation["responses"].items() if code >= "400"}
            assert refusals or path == "/healthz"
            for each in refusals.values():
                (media,) = each["content"].values()
                assert media["schema"]["$ref"].endswith(("/Trouble", "/Ready"))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_whatever_is_asked_is_answered_as_the_document_says(document: Any, mode: str) -> None:
    from schemathesis.specs.openapi import checks  # noqa: PLC0415

    for operation in _operations(document):
        token = ADMIN_TOKEN if operation.path.startswith("/admin") else READ_TOKEN

        def ask(case: Any, token: str = token) -> None:
            # A query may say a thing twice, where the last one goes: that is no schema's matter.
            is_lenient = case.method == "GET"
            lenient = [checks.positive_data_acceptance, *([checks.negative_data_rejection] if is_lenient else [])]
            case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, excluded_checks=lenient)

        _try(operation, mode, ask, examples=25)


@pytest.mark.slow
def test_without_a_token_everything_but_the_probes_is_refused(document: Any) -> None:
    from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: PLC0415

    def ask(case: Any) -> None:
        answer = case.call()
        is_open = case.path in ("/healthz", "/readyz")
        assert answer.status_code in ((200,) if is_open else (400, 401, 415))
        case.validate_response(answer, excluded_checks=[positive_data_acceptance])

    for operation in _operations(document):
        _try(operation, "positive", ask, examples=5)


def _operations(document: Any) -> list[Any]:
    return [each.ok() for each in document.get_all_operations()]


def _try(operation: Any, mode: str, ask: Callable[[Any], None], examples: int) -> None:
    """Make many requests of one kind, the same ones each time."""

    from schemathesis import GenerationMode  # noqa: PLC0415

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=QUIETLY)
    @given(case=operation.as_strategy(generation_mode=GenerationMode(mode)))
    def tried(case: Any) -> None:
        ask(case)

    try:
        tried()
    except Unsatisfiable:
        assert mode == "negative"  # there is nothing that could be wrong in it
