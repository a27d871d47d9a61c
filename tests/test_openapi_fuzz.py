"""Requests made from the OpenAPI document, right and wrong ones: every answer is one that the document allows."""

import copy

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from schemathesis.checks import load_all_checks
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from versions import ADMIN, add_keys

from fsr_serve.http.app import create_app
from fsr_serve.http.openapi import document
from fsr_serve.server import Server
from fsr_serve.settings import Settings
from fsr_serve.workers import Worker, make_folder

REAL = {"name": "colours", "version": "1"}
"""Path parameters that lead somewhere: by chance none would. Wrong ones come up still, as half of all examples are."""

load_all_checks()
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
    ignored_auth,
]
_server = []


async def app(scope, receive, send):
    """The app of the server that runs; the tests are made before there is one."""
    await create_app(lambda: _server[0])(scope, receive, send)


def described():
    """The document, which leads to what is there."""
    found = copy.deepcopy(document())
    for methods in found["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    parameter["schema"] = {"enum": [REAL[parameter["name"]]]}
    return found


@pytest.fixture(scope="module", autouse=True)
def _serving(models, tmp_path_factory):
    """A server with a key of every scope."""
    folder = tmp_path_factory.mktemp("fuzz")
    given = Settings(models=models, state=folder, keys=add_keys(folder / "keys.toml"), max_images=8)
    _server.append(Server.start(given, Worker(make_folder())))
    yield
    _server.clear()


schema = schemathesis.openapi.from_dict(described())
schema.app = app
every_operation = pytest.mark.parametrize(
    "operation", [found.ok() for found in schema.get_all_operations()], ids=lambda operation: operation.label
)


@every_operation
def test_every_answer_is_one_that_the_document_allows(operation):
    assert ask(operation, max_examples=15) != {404}, "a route whose model is never found is not tested"


@pytest.mark.system
@every_operation
def test_every_answer_is_one_that_the_document_allows_for_long(operation):
    """Others on each run."""
    ask(operation, max_examples=400, derandomize=False, print_blob=True)


def ask(operation, **options):
    """Statuses of the answers. Half of the examples are as the document wants them, half are not."""
    found = set()

    @given(case=st.one_of(map(operation.as_strategy, GenerationMode)))
    @settings(phases=[Phase.generate], suppress_health_check=list(HealthCheck), **options)
    def every(case):
        assume(all(isinstance(part, str) for part in case.path_parameters.values()))  # others end up as other routes
        response = case.call(headers=ADMIN)
        assert response.status_code < 500 or response.status_code in (503, 504), response.text
        case.validate_response(response, checks=CHECKS, headers=ADMIN)
        found.add(response.status_code)

    every()
    return found
