"""Open Inference Protocol V2: the unmodified Triton client against a real server, and what is refused."""

import base64
import json
import struct

import numpy as np
import pytest
import tritonclient.http as triton
from conftest import CLASSES, SIDE, as_json, picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import serving
from tritonclient.utils import InferenceServerException

RED, GREEN, BLUE = (picture(colour) for colour in ("red", "green", "blue"))
FILES = np.array([RED, GREEN, BLUE], dtype=np.object_)
MODEL = "/v2/models/colours"
INFER = f"{MODEL}/infer"
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 3, SIDE, SIDE), dtype=np.uint8)


@pytest.fixture(scope="module")
def remote(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("open_inference")
    with serving(models, folder / "home", folder / "log", FSR_MAX_IMAGES="8") as address:
        yield triton.InferenceServerClient(address.removeprefix("http://"))


def tensor(values, datatype, binary=True):
    found = triton.InferInput("images", values.shape, datatype)
    found.set_data_from_numpy(values, binary_data=binary)
    return [found]


def test_triton_client_finds_server_and_model(remote):
    assert remote.is_server_live()
    assert remote.is_server_ready()
    assert remote.get_server_metadata()["name"] == "fsr-serve"
    assert remote.is_model_ready("colours")
    assert remote.is_model_ready("colours", "1")
    assert not remote.is_model_ready("colours", "2")
    metadata = remote.get_model_metadata("colours")
    assert metadata["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 3, SIDE, SIDE]}]
    assert metadata["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, len(CLASSES)]}]
    assert metadata["versions"] == ["1"]
    assert {"runtime", "device", "precision"} < metadata["parameters"].keys()


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
@pytest.mark.parametrize("datatype", ["FP32", "UINT8"])
def test_triton_client_gets_the_logits_of_a_tensor(remote, models, datatype, binary):
    import onnxruntime

    floats = PIXELS.astype(np.float32) / np.float32(255)
    session = onnxruntime.InferenceSession(models / "colours" / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    (expected,) = session.run(["logits"], {"images": floats})
    values = floats if datatype == "FP32" else PIXELS
    outputs = [triton.InferRequestedOutput("logits", binary_data=binary)]
    result = remote.infer("colours", tensor(values, datatype, binary), outputs=outputs, request_id="a1")
    assert result.as_numpy("logits").dtype == np.float32
    np.testing.assert_allclose(result.as_numpy("logits"), expected, rtol=1e-4, atol=1e-3)
    answer = result.get_response()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("a1", "colours", "1")


def test_triton_client_sends_the_files_themselves(remote):
    by_default = remote.infer("colours", tensor(FILES, "BYTES")).as_numpy("logits")
    in_json = np.array([base64.b64encode(file).decode() for file in FILES], dtype=np.object_)
    again = remote.infer("colours", tensor(in_json, "BYTES", binary=False), model_version="1").as_numpy("logits")
    assert by_default.shape == (3, len(CLASSES))
    np.testing.assert_array_equal(by_default, again)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
def test_triton_client_asks_for_the_likeliest_classes(remote, binary):
    logits = remote.infer("colours", tensor(FILES, "BYTES")).as_numpy("logits")
    outputs = [triton.InferRequestedOutput("logits", binary_data=binary, class_count=2)]
    found = remote.infer("colours", tensor(FILES, "BYTES"), outputs=outputs).as_numpy("logits")
    assert found.shape == (3, 2)
    for row, entries in zip(logits, found, strict=True):
        for entry, index in zip(entries, np.argsort(-row), strict=False):
            value, number, label = (entry.decode() if isinstance(entry, bytes) else entry).split(":")
            assert (float(value), int(number), label) == (pytest.approx(row[index], abs=1e-3), index, CLASSES[index])


def test_triton_client_is_told_what_is_wrong(remote):
    with pytest.raises(InferenceServerException, match="there is no model 'cats'; expected 'colours'"):
        remote.infer("cats", tensor(FILES, "BYTES"))
    with pytest.raises(InferenceServerException, match="image 1: the 4 bytes are no image"):
        remote.infer("colours", tensor(np.array([RED, b"cats"], dtype=np.object_), "BYTES"))


def test_files_and_classify_agree(client):
    body = {"inputs": [{"name": "images", "shape": [2], "datatype": "BYTES", "data": as_json(RED, BLUE)["images"]}]}
    body["outputs"] = [{"name": "logits", "parameters": {"classification": 1}}]
    (output,) = client.post(INFER, json=body).json()["outputs"]
    predictions = client.post("/classify", json=as_json(RED, BLUE)).json()["predictions"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 1])
    assert [entry.split(":")[2] for entry in output["data"]] == [prediction["label"] for prediction in predictions]


def test_numbers_may_be_nested_or_flat(client):
    pixels = (PIXELS / 255).astype(np.float32)
    flat, nested = (
        client.post(INFER, json=request(data=data)).json()["outputs"][0]["data"]
        for data in (pixels.ravel().tolist(), pixels.tolist())
    )
    assert flat == nested


def request(**changes):
    tensor = {"name": "images", "shape": list(PIXELS.shape), "datatype": "FP32"}
    return {"inputs": [{**tensor, **changes}]}


COUNT = PIXELS.size
HALVES = [0.5] * COUNT
REFUSED = {
    "no JSON": (b"{", 400, "cannot be read"),
    "no input": ({"inputs": []}, 400, "inputs: List should have at least 1 item"),
    "two inputs": ({"inputs": request()["inputs"] * 2}, 400, "at most 1 item"),
    "unknown key": ({**request(data=HALVES), "output": []}, 400, "output: Extra inputs are not permitted"),
    "unknown input": (request(name="image", data=HALVES), 400, "inputs.0.name: Input should be 'images'"),
    "unknown output": ({**request(data=HALVES), "outputs": [{"name": "maps"}]}, 400, "should be 'logits'"),
    "unknown datatype": (request(datatype="FP16"), 400, "'FP32', 'UINT8' or 'BYTES'"),
    "no data": (request(), 400, "both data and binary_data_size, or neither"),
    "a shape of texts": (
        request(shape=[""] * 500, data=HALVES),
        400,
        "read: inputs.0.shape: List should have at most 4 items after validation, not 500$",
    ),
    "unknown keys": ({**request(data=HALVES), **{f"key{number}": 0 for number in range(200)}}, 413, "times ':'"),
    "too few numbers": (request(data=HALVES[1:]), 400, f"holds {COUNT - 1} values; its shape has {COUNT}"),
    "ragged": (request(data=[HALVES[1:], 0.5]), 400, "holds 2 values"),
    "text": (request(data=["0.5"] * COUNT), 400, "holds str"),
    "null": (request(data=[*HALVES[1:], None]), 400, "holds NoneType"),
    "NaN": (json.dumps(request(data=[*HALVES[1:], float("nan")])).encode(), 400, "from nan to nan; expected"),
    "infinity": (json.dumps(request(data=[*HALVES[1:], float("inf")])).encode(), 400, "to inf; expected"),
    "huge": (request(data=[*HALVES[1:], 10**400]), 400, "expected"),
    "above one": (request(data=[*HALVES[1:], 1.001]), 400, "from 0.5 to 1.001; expected"),
    "below zero": (request(data=[*HALVES[1:], -0.001]), 400, "from -0.001 to 0.5; expected"),
    "fraction as UINT8": (request(datatype="UINT8", data=HALVES), 400, "holds float"),
    "256 as UINT8": (request(datatype="UINT8", data=[256] * COUNT), 400, "from 256 to 256; expected 0..255"),
    "other size": (
        request(shape=[1, 3, 99, 99], data=HALVES),
        400,
        "shape \\[1, 3, 99, 99\\]; expected \\[n, 3, 16, 16\\]",
    ),
    "no image": (request(shape=[0, 3, SIDE, SIDE], data=[]), 400, "shape \\[0"),
    "negative": (request(shape=[-1, 3, SIDE, SIDE], data=HALVES), 400, "shape \\[-1"),
    "two gigabytes": (
        request(shape=[700_000, 3, SIDE, SIDE], parameters={"binary_data_size": 2**31}),
        413,
        "at most 8",
    ),
    "too many": (request(shape=[9, 3, SIDE, SIDE], data=[0.5]), 413, "9 images; at most 8"),
    "many lists": (b'{"inputs": [' + b"[]," * 40_000, 413, "times"),
    "bad base64": (request(shape=[1], datatype="BYTES", data=["?"]), 400, "not base64"),
    "bytes as numbers": (request(shape=[1], datatype="BYTES", data=[1]), 400, "holds int; expected base64"),
    "fewer files": (request(shape=[2], datatype="BYTES", data=[""]), 400, "holds 1 elements; expected 2"),
    "endless timeout": (
        {**request(data=HALVES), "parameters": {"timeout": 10**400}},
        400,
        "parameters.timeout: Input should be less than or equal to 9223372036854775807",
    ),
    "no classes": (
        {**request(data=HALVES), "outputs": [{"name": "logits", "parameters": {"classification": 0}}]},
        400,
        "1",
    ),
}


@pytest.mark.parametrize(("body", "status", "message"), REFUSED.values(), ids=REFUSED)
def test_a_bad_request_is_refused_with_value_and_rule(client, body, status, message):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = client.post(INFER, content=content)
    assert response.status_code == status
    assert response.json().keys() == {"error"}
    assert_found(message, response.json()["error"])


def assert_found(message, text):
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(text)


def binary_request(head, data, length=None):
    text = json.dumps(head).encode()
    header = str(len(text) if length is None else length)
    return {"content": text + data, "headers": {"Inference-Header-Content-Length": header}}


FLOATS = (PIXELS / 255).astype("<f4").tobytes()
SPOILT = struct.pack("<f", float("nan")) + FLOATS[4:]
BINARY = {
    "less than announced": (request(parameters={"binary_data_size": 9}), b"12345678", None, "8 bytes follow"),
    "more than announced": (request(data=HALVES), b"1", None, "1 bytes follow"),
    "less than the shape": (request(parameters={"binary_data_size": 8}), b"12345678", None, "has 8 bytes; FP32 of its"),
    "NaN": (request(parameters={"binary_data_size": len(FLOATS)}), SPOILT, None, "nan"),
    "header beyond the body": (request(), b"", 10**6, "expected a whole number of at most"),
    "header is no number": (request(), b"", "ten", "Inference-Header-Content-Length is 'ten'"),
    "length cut": (
        request(shape=[1], datatype="BYTES", parameters={"binary_data_size": 3}),
        b"123",
        None,
        "within a length",
    ),
    "length too large": (
        request(shape=[1], datatype="BYTES", parameters={"binary_data_size": 5}),
        b"\xff\xff\xff\xff1",
        None,
        "1 are left",
    ),
}


@pytest.mark.parametrize(("head", "data", "length", "message"), BINARY.values(), ids=BINARY)
def test_a_bad_binary_tensor_is_refused_with_value_and_rule(client, head, data, length, message):
    response = client.post(INFER, **binary_request(head, data, length))
    assert response.status_code == 400
    assert_found(message, response.json()["error"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/cats", 404),
        ("GET", "/v2/models/colours/versions/2", 404),
        ("GET", "/v2/models/colours/versions/one/ready", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", INFER, 405),
        ("POST", "/v2", 405),
    ],
)
def test_what_is_not_there_is_refused_in_the_protocols_shape(client, method, path, status):
    response = client.request(method, path)
    assert response.status_code == status
    assert response.json().keys() == {"error"}
    assert isinstance(response.json()["error"], str)


def test_the_longest_timeout_of_the_protocol_is_taken(client):
    body = {**request(data=HALVES), "parameters": {"timeout": 2**63 - 1}}
    assert client.post(INFER, json=body).status_code == 200


def test_the_body_that_kserves_client_sends_is_taken(client):
    body = {**request(data=HALVES), "id": "1", "model_name": "colours"}
    assert client.post(INFER, json=body).status_code == 200
    response = client.post(INFER, json=body | {"model_name": "shapes"})
    assert (response.status_code, response.json()["error"]) == (404, "there is no model 'shapes'; expected 'colours'")


def test_a_model_is_ready_while_the_server_is(client, server):
    assert client.get(f"{MODEL}/ready").json() == {"name": "colours", "ready": True}
    server.lifecycle.is_draining = True
    assert client.get(f"{MODEL}/ready").status_code == 503


def test_a_compressed_body_is_refused(client):
    response = client.post(INFER, content=b"", headers={"Content-Encoding": "gzip"})
    assert (response.status_code, response.json()["error"]) == (415, "the body is compressed; expected it as it is")


GOOD_BINARY = binary_request(request(parameters={"binary_data_size": len(FLOATS)}), FLOATS)["content"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([GOOD_BINARY, json.dumps(request(data=HALVES)).encode()]), st.data())
def test_no_mutated_body_makes_the_server_fail(client, body, data):
    content = bytearray(body)
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(len(content), 400) - 1))] = data.draw(st.integers(0, 255))
    length = data.draw(st.integers(0, 300))
    response = client.post(INFER, content=bytes(content), headers={"Inference-Header-Content-Length": str(length)})
    assert response.status_code < 500
