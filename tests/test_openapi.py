"""The OpenAPI document describes the app as it is."""

import re

import pytest
from servers import ROOT

from fsr_serve.http.app import create_app
from fsr_serve.http.openapi import document

METHODS = {"get", "post", "put", "patch", "delete"}


def operations():
    """(path, method) -> what the document says."""
    return {
        (path, method): found
        for path, methods in document()["paths"].items()
        for method, found in methods.items()
        if method in METHODS
    }


def test_every_route_of_the_app_is_in_the_document_and_the_reverse(server):
    routes = {
        (route.path, method.lower())
        for route in create_app(lambda: server).routes
        for method in route.methods - {"HEAD"}
    }
    assert routes == set(operations())


def test_the_document_is_served_without_a_key(client):
    response = client.get("/openapi.json")
    assert response.status_code == 200
    assert response.json() == document()
    assert response.json()["openapi"].startswith("3.1")


def test_every_reference_leads_somewhere():
    names = set(re.findall(r"'#/components/schemas/(\w+)'", repr(document())))
    assert names == set(document()["components"]["schemas"])


def test_operation_ids_are_unique():
    ids = [found["operationId"] for found in operations().values()]
    assert len(set(ids)) == len(ids)


def test_only_health_the_page_and_the_document_are_open_where_there_are_keys():
    unguarded = {path for (path, _), found in operations().items() if "security" not in found}
    assert unguarded == {"/livez", "/readyz", "/v2/health/live", "/v2/health/ready", "/openapi.json", "/"}


def test_admin_always_needs_a_key():
    for (path, _), found in operations().items():
        if path.startswith("/admin"):
            assert found["security"] == [{"key": ["admin"]}]


@pytest.mark.parametrize("kind", ["image/jpeg", "image/png", "image/webp", "multipart/form-data", "application/json"])
def test_the_document_says_what_classify_takes(kind):
    assert kind in operations()["/classify", "post"]["requestBody"]["content"]


def test_headers_that_are_read_are_described():
    headers = {found["name"] for found in operations()["/classify", "post"]["parameters"] if found["in"] == "header"}
    assert headers == {"X-Request-ID", "X-Request-Timeout-Ms"}


def test_the_guide_and_the_document_list_the_same_codes():
    """docs/serving.md and /openapi.json, which are written apart."""
    guide = (ROOT / "docs" / "serving.md").read_text()
    rows = re.findall(r"^\| (\d{3}) \| (.+?) \|", guide, re.MULTILINE)
    in_guide = {(status, code) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    of_no_route = {("404", "not_found"), ("405", "method_not_allowed")}
    of_no_route |= {("400", "malformed_http"), ("431", "head_too_large")}
    in_document = {
        (status, code)
        for found in operations().values()
        for status, response in found["responses"].items()
        for code in _codes(response)
    }
    assert in_document == in_guide - of_no_route


def _codes(response):
    schema = response["content"].get("application/json", {}).get("schema", {})
    parts = schema.get("allOf", [])
    return parts[1]["properties"]["error"]["properties"]["code"]["enum"] if parts else []


def test_every_operation_says_how_it_answers(client):
    for found in operations().values():
        assert "200" in found["responses"]
        for response in found["responses"].values():
            assert response["description"]
            assert response["content"]
