"""Every route asks for a key of its scope, and refuses those of all others."""

from typing import get_args

import pytest
from starlette.testclient import TestClient
from test_keys import entry

from fsr_serve.http.app import create_app
from fsr_serve.http.openapi import document
from fsr_serve.keys import Scope
from fsr_serve.server import Server
from fsr_serve.workers import Worker, make_folder

OPEN = ("/", "/livez", "/readyz", "/v2/health/live", "/v2/health/ready", "/openapi.json")
SCOPES = {"/classify": "infer", "/bentoml": "infer", "/v2": "infer", "/admin": "admin", "/metrics": "metrics"}
"""By the first part of the path."""

GUARDED = [
    (method.upper(), path, SCOPES["/" + path.split("/")[1]])
    for path, methods in document()["paths"].items()
    for method in methods
    if path not in OPEN
]
every_guarded_route = pytest.mark.parametrize(("method", "path", "scope"), GUARDED)


@pytest.fixture(scope="module")
def keyed(settings, tmp_path_factory):
    """A client of a server with one key for each scope, whose secret is the scope's name."""
    keys = tmp_path_factory.mktemp("scopes") / "keys.toml"
    keys.write_text("".join(entry(scope, scope) for scope in get_args(Scope)))
    server = Server.start(settings.model_copy(update={"keys": keys}), Worker(make_folder()))
    with TestClient(create_app(lambda: server)) as client:
        yield client


def ask(client, method, path, secret=None):
    """The answer about a model that there is not, so that nothing changes."""
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    return client.request(method, path.format(name="cats", version="1"), headers=headers)


@every_guarded_route
def test_a_route_is_for_keys_of_its_scope_only(keyed, method, path, scope):
    for other in set(get_args(Scope)) - {scope}:
        assert ask(keyed, method, path, other).status_code == 403, other
    assert ask(keyed, method, path, scope).status_code not in (401, 403)


@every_guarded_route
def test_a_route_is_for_known_keys_only(keyed, method, path, scope):
    for secret in (None, "guessed"):
        refused = ask(keyed, method, path, secret)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


@every_guarded_route
def test_the_document_names_the_scope(method, path, scope):
    assert document()["paths"][path][method.lower()]["security"][0] == {"key": [scope]}


@every_guarded_route
def test_without_a_file_of_keys_all_but_admin_is_open(client, method, path, scope):
    response = ask(client, method, path)
    if scope == "admin":
        assert (response.status_code, response.json()["error"]["code"]) == (403, "no_keys")
    else:
        assert response.status_code not in (401, 403)


@pytest.mark.parametrize("path", OPEN)
def test_health_the_page_and_the_document_are_open_to_all(keyed, path):
    assert ask(keyed, "GET", path).status_code == 200
