"""What POST /classify refuses, in one shape of error that names value and rule."""

import asyncio
import json
import re

import pytest
from conftest import as_form, picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsr_serve.batcher import BatchLimits
from fsr_serve.http.app import create_app

RED = picture("red")
PNG = {"Content-Type": "image/png"}
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
LIMITS = "at most 200000 are accepted"
BAD = {
    "empty body": ("/classify", b"", PNG, 400, "empty_image", "0 bytes"),
    "garbage": ("/classify", b"garbage", PNG, 400, "unreadable_image", "7 bytes"),
    "truncated": ("/classify", RED[:-30], PNG, 400, "damaged_image", "PNG image is truncated"),
    "image too large": ("/classify", RED + b"\0" * 100_000, PNG, 413, "image_too_large", "at most 100000"),
    "too many pixels": ("/classify", picture(size=(600, 600)), PNG, 413, "too_many_pixels", "600x600"),
    "body too large": ("/classify", b"\0" * 200_001, PNG, 413, "body_too_large", f"200001 bytes; {LIMITS}"),
    "no content type": ("/classify", RED, {}, 415, "unsupported_content_type", "Content-Type is missing"),
    "wrong content type": (
        "/classify",
        RED,
        {"Content-Type": "image/gif"},
        415,
        "unsupported_content_type",
        "image/gif",
    ),
    "curl's own type": (
        "/classify",
        RED,
        {"Content-Type": "application/x-www-form-urlencoded"},
        415,
        "unsupported_content_type",
        "expected image/jpeg",
    ),
    "no boundary": (
        "/classify",
        b"--x",
        {"Content-Type": "multipart/form-data"},
        400,
        "malformed_multipart",
        "boundary",
    ),
    "broken form": ("/classify", b"no form at all", FORM, 400, "malformed_multipart", "cannot be read"),
    "cut form": (
        "/classify",
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nab',
        FORM,
        400,
        "malformed_multipart",
        "cannot be read",
    ),
    "form cut after a false end": (
        "/classify",
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nab--x--cd',
        FORM,
        400,
        "malformed_multipart",
        "closing boundary is missing",
    ),
    "form without files": (
        "/classify",
        b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\nab\r\n--x--\r\n',
        FORM,
        400,
        "no_images",
        "expected at least one",
    ),
    "no JSON": ("/classify", b"{", JSON, 400, "malformed_json", "not JSON"),
    "deep JSON": ("/classify", b"[" * 101, JSON, 400, "malformed_json", "not JSON"),
    "deeper JSON": (
        "/classify",
        b"[" * 102,
        JSON,
        413,
        "too_many_values",
        r"102 times '\['; 8 images have at most 101",
    ),
    "many values": ("/classify", b"1," * 109, JSON, 413, "too_many_values", "109 times ','; 8 images have at most 108"),
    "many objects": ("/classify", b"{" * 101, JSON, 413, "too_many_values", "101 times '{'"),
    "other JSON": ("/classify", b"[1]", JSON, 400, "malformed_json", "list; expected"),
    "unknown key": ("/classify", b'{"imagse": []}', JSON, 400, "malformed_json", "'imagse'"),
    "extra key": ("/classify", b'{"image": "", "url": ""}', JSON, 400, "malformed_json", "'url'"),
    "not text": ("/classify", b'{"images": [1]}', JSON, 400, "malformed_json", "expected"),
    "no images": ("/classify", b'{"images": []}', JSON, 400, "no_images", "expected at least one"),
    "bad base64": ("/classify", b'{"image": "?"}', JSON, 400, "invalid_base64", "'?'"),
    "not ASCII": ("/classify", '{"image": "é"}'.encode(), JSON, 400, "invalid_base64", "'é'"),
    "too many images": (
        "/classify",
        json.dumps({"images": [""] * 9}).encode(),
        JSON,
        413,
        "too_many_images",
        "9 images; at most 8",
    ),
    "top_k zero": (
        "/classify?top_k=0",
        RED,
        PNG,
        400,
        "parameter_out_of_range",
        "top_k is '0'; expected one whole number from 1 to 3",
    ),
    "top_k beyond": ("/classify?top_k=4", RED, PNG, 400, "parameter_out_of_range", "top_k is '4'"),
    "top_k with zeros": ("/classify?top_k=0000000001", RED, PNG, 400, "parameter_out_of_range", "0000000001"),
    "top_k twice": ("/classify?top_k=1&top_k=2", RED, PNG, 400, "parameter_out_of_range", "'1' and '2'"),
    "top_k word": ("/classify?top_k=all", RED, PNG, 400, "parameter_out_of_range", "top_k is 'all'"),
    "unknown parameter": (
        "/classify?topk=1",
        RED,
        PNG,
        400,
        "unknown_parameter",
        "expected evidence, model, top_k, version",
    ),
}


@pytest.mark.parametrize(("url", "body", "headers", "status", "code", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_a_4xx_that_names_value_and_rule(client, url, body, headers, status, code, message):
    response = client.post(url, content=body, headers=headers)
    assert response.status_code == status
    assert response.json().keys() == {"error"}
    error = response.json()["error"]
    assert error.keys() == {"code", "message", "request_id"}
    assert error["code"] == code
    assert re.search(message, error["message"])
    assert response.headers["x-request-id"] == error["request_id"]


def test_too_many_files_in_a_form_are_refused(client):
    response = client.post("/classify", files=as_form(*[RED] * 9))
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too_many_images")


def test_a_body_without_length_is_bounded_too(client):
    response = client.post("/classify", content=(b"\0" * 50_000 for _ in range(5)), headers=PNG)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=300) | st.text(max_size=100).map(str.encode),
    kind=st.sampled_from(["image/png", "application/json", "multipart/form-data; boundary=x", "text/plain", ""]),
    query=st.text(max_size=20),
)
def test_no_body_type_or_query_makes_the_server_fail(client, body, kind, query):
    response = client.post(
        "/classify", params={"top_k": query} if query else {}, content=body, headers={"Content-Type": kind}
    )
    assert 400 <= response.status_code < 500
    assert response.json()["error"]["code"]


@pytest.mark.parametrize("given", ["0", "10001", "-1", "1.5", "soon", "", "1" * 5000])
def test_a_deadline_out_of_range_is_refused(client, given):
    response = client.post("/classify", content=RED, headers={**PNG, "X-Request-Timeout-Ms": given})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "parameter_out_of_range")
    assert "from 1 to 10000" in response.json()["error"]["message"]


def test_a_request_that_is_not_admitted_is_told_when_to_come_back(client, server):
    server.classifier.batcher.limits = BatchLimits(batch_images=1, queue_images=0)
    response = client.post("/classify", content=RED, headers={**PNG, "X-Request-Timeout-Ms": "10000"})
    assert (response.status_code, response.json()["error"]["code"]) == (429, "queue_full")
    assert response.headers["retry-after"] == "1"


def test_another_method_is_refused_in_the_same_shape(client):
    response = client.get("/classify")
    assert (response.status_code, response.json()["error"]["code"]) == (405, "method_not_allowed")
    assert "POST" in response.headers["allow"]


def test_a_failure_of_the_server_shows_no_trace(client, server, monkeypatch):
    monkeypatch.setattr(server.classifier.batcher, "session", None)
    response = client.post("/classify", content=RED, headers=PNG)
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal"
    assert "NoneType" not in response.text


def test_a_body_that_does_not_come_is_given_up(server, monkeypatch):
    monkeypatch.setattr("fsr_serve.http.body.READ_SECONDS", 0.05)
    sent = []

    async def receive():
        await asyncio.sleep(10 if sent else 0.2)
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)
        if not message.get("more_body", True):
            raise AssertionError("the connection was closed while the client could still read")

    async def request():
        scope = {"type": "http", "method": "POST", "path": "/classify", "query_string": b"", "http_version": "1.1"}
        scope["headers"] = [(b"content-type", b"image/png"), (b"content-length", b"1000")]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(create_app(lambda: server)(scope, receive, send), 3)

    asyncio.run(request())
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["error"]["code"] == "body_too_slow"
