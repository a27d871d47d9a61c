"""POST /classify, through an HTTP client of the app."""

import asyncio
import base64
import json
import re

import numpy as np
import pytest
from conftest import CLASSES, as_form, as_json, picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsr_serve.batcher import BatchLimits
from fsr_serve.http.app import create_app
from fsr_serve.preprocessing import PixelBudget, decode, to_floats

RED, GREEN, BLUE = (picture(colour) for colour in ("red", "green", "blue"))
PNG = {"Content-Type": "image/png"}


def test_the_answer_is_what_the_session_computes(client, server):
    answer = client.post("/classify", content=RED, headers=PNG).json()
    manifest = server.classifier.version.manifest
    pixels = decode(RED, manifest.preprocessing, max_bytes=10**6, budget=PixelBudget(10**6, 10**6))
    logits = server.classifier._session.logits(to_floats([pixels[None]], 1))[0].astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum()
    (prediction,) = answer["predictions"]
    assert prediction["class_index"] == probabilities.argmax()
    assert prediction["label"] == CLASSES[probabilities.argmax()]
    assert prediction["probability"] == pytest.approx(probabilities.max(), abs=1e-6)
    ranked = [entry["class_index"] for entry in prediction["top_k"]]
    assert ranked == np.argsort(-probabilities).tolist()
    assert prediction["top_k"][0] == {key: prediction[key] for key in ("label", "class_index", "probability")}


def test_the_answer_names_the_model_the_request_and_the_stages(client, server):
    response = client.post("/classify", content=RED, headers=PNG)
    answer = response.json()
    assert answer.keys() == {"model", "request_id", "predictions", "seconds"}
    assert answer["model"] == {"name": "colours", "version": 1, "sha256": server.classifier.version.sha256}
    assert answer["seconds"].keys() == {"read", "decode", "queue", "inference"}
    assert response.headers["x-request-id"] == answer["request_id"]


def test_raw_multipart_and_json_give_the_same_answers_for_the_same_bytes(client):
    images = (RED, GREEN, BLUE)
    raw = [client.post("/classify", content=image, headers=PNG).json()["predictions"][0] for image in images]
    form = client.post("/classify", files=as_form(*images)).json()["predictions"]
    json_ = client.post("/classify", json=as_json(*images)).json()["predictions"]
    assert form == json_
    for one, several in zip(raw, form, strict=True):
        assert one["label"] == several["label"]
        assert one["probability"] == pytest.approx(
            several["probability"], abs=1e-5
        )  # another batch size, other rounding


@pytest.mark.parametrize(("format", "kind"), [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp")])
def test_each_image_type_is_taken_raw(client, format, kind):
    response = client.post("/classify", content=picture("red", (50, 40), format), headers={"Content-Type": kind})
    assert response.status_code == 200


def test_one_image_as_json(client):
    one = client.post("/classify", json={"image": base64.b64encode(RED).decode()}).json()
    assert one["predictions"] == client.post("/classify", json=as_json(RED)).json()["predictions"]


def test_form_fields_without_a_filename_are_no_images(client):
    response = client.post("/classify", files=as_form(RED), data={"note": "hello"})
    assert len(response.json()["predictions"]) == 1


@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k_sets_how_many_classes_are_listed(client, k):
    (prediction,) = client.post(f"/classify?top_k={k}", content=RED, headers=PNG).json()["predictions"]
    assert len(prediction["top_k"]) == k


def test_a_mixed_request_answers_its_good_images(client):
    images = as_json(RED, b"garbage", GREEN)["images"]
    response = client.post("/classify", json={"images": [*images, "not base64!"]})
    assert response.status_code == 200
    red, garbage, green, text = response.json()["predictions"]
    good = client.post("/classify", json=as_json(RED, GREEN)).json()["predictions"]
    assert [red, green] == good
    assert garbage["error"]["code"] == "unreadable_image"
    assert text["error"]["code"] == "invalid_base64"


def test_when_no_image_is_good_the_first_error_is_the_answer(client):
    response = client.post("/classify", json=as_json(b"", b"garbage"))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "empty_image"


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
    "form of a strange charset": (
        "/classify",
        b"--x--",
        {"Content-Type": "multipart/form-data; boundary=x; charset=punycode"},
        400,
        "malformed_multipart",
        "charset is not utf-8",
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
        "expected model, top_k, version",
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


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


def test_the_clients_request_id_is_kept_when_it_is_a_plain_one(client):
    response = client.post("/classify", content=RED, headers={**PNG, "X-Request-ID": "order-17.a_B"})
    assert response.json()["request_id"] == response.headers["x-request-id"] == "order-17.a_B"
    response = client.post("/classify", content=RED, headers={**PNG, "X-Request-ID": "a b" + "c" * 200})
    assert len(response.json()["request_id"]) == 32


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
            await asyncio.wait_for(create_app(lambda: server)(scope, receive, send), 1)

    asyncio.run(request())
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["error"]["code"] == "body_too_slow"
