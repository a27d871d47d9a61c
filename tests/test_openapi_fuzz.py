"""Requests made from the OpenAPI document, right and wrong ones: every answer is one that the document allows."""

import copy
import hashlib

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from prometheus_client import CollectorRegistry
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from fsr_serve.http.app import create_app
from fsr_serve.http.openapi import document
from fsr_serve.server import Server
from fsr_serve.settings import Settings

KEY = "all-scopes"
HEADERS = {"Authorization": f"Bearer {KEY}"}
REAL = {"name": "colours", "version": "1"}
"""Path parameters that lead somewhere: by chance none would."""

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
    """The document of the routes that are there."""
    found = copy.deepcopy(document())
    routes = {route.path for route in create_app(lambda: _server[0]).routes}
    found["paths"] = {path: methods for path, methods in found["paths"].items() if path in routes}
    for methods in found["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    parameter["schema"] = {"anyOf": [{"const": REAL[parameter["name"]]}, parameter["schema"]]}
    return found


@pytest.fixture(scope="module", autouse=True)
def _serving(models, tmp_path_factory):
    """A server with a key of every scope."""
    keys = tmp_path_factory.mktemp("keys") / "keys.toml"
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    keys.write_text(f'[keys.all]\nsha256 = "{digest}"\nscopes = ["infer", "metrics", "evidence", "admin"]\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
        _server.append(Server.start(Settings(models=models, keys=keys, max_images=8), CollectorRegistry()))
        yield
        _server.clear()


schema = schemathesis.openapi.from_dict(described())
schema.app = app


def examples(count):
    """The same `count` each time, besides those that cover the document's limits."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@schema.parametrize()
@examples(20)
def test_every_answer_is_one_that_the_document_allows(case):
    check(case)


@pytest.mark.system
@schema.parametrize()
@examples(2000)
def test_every_answer_is_one_that_the_document_allows_for_long(case):
    check(case)


def check(case):
    response = case.call(headers=HEADERS)
    assert response.status_code < 500 or response.status_code in (503, 504), response.text
    case.validate_response(response, checks=CHECKS, headers=HEADERS)
