"""POST /classify, through an HTTP client of the app."""

import base64
import re

import numpy as np
import pytest
from conftest import CLASSES, as_form, as_json, picture

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


def test_the_clients_request_id_is_kept_when_it_is_a_plain_one(client):
    response = client.post("/classify", content=RED, headers={**PNG, "X-Request-ID": "order-17.a_B"})
    assert response.json()["request_id"] == response.headers["x-request-id"] == "order-17.a_B"
    response = client.post("/classify", content=RED, headers={**PNG, "X-Request-ID": "a b" + "c" * 200})
    assert len(response.json()["request_id"]) == 32


def test_the_page_needs_nothing_from_elsewhere(client):
    response = client.get("/")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert not re.search(r"https?://", response.text)
