"""Requests that are right, and the same a little wrong: the same ones for the same seed."""

import json
import random
import struct
from dataclasses import dataclass

import numpy as np
from conftest import SIDE, as_json, encoded
from PIL import Image

INFER = "/v2/models/colours/infer"
JSON_BYTES = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Sent:
    path: str
    headers: dict[str, str]
    body: bytes


def right_requests() -> list[Sent]:
    """Files, forms, JSON and tensors that the model `colours` classifies."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    grey = Image.fromarray(noise[..., 0])
    exif = Image.Exif()
    exif[0x0112] = 6
    jpegs = [encoded(image, "JPEG"), encoded(image, "JPEG", progressive=True, exif=exif), encoded(grey, "JPEG")]
    pngs = [encoded(image), encoded(image.quantize(16), transparency=3), encoded(image.convert("I;16"))]
    webps = [
        encoded(image, "WEBP"),
        encoded(image.convert("RGBA"), "WEBP", lossless=True),
        encoded(image, "WEBP", save_all=True, append_images=[image.rotate(180)]),
    ]
    files = [
        Sent("/classify", {"Content-Type": kind}, file)
        for kind, found in (("image/jpeg", jpegs), ("image/png", pngs), ("image/webp", webps))
        for file in found
    ]
    return [*files, _form(jpegs[0], pngs[0]), _json(as_json(jpegs[0], webps[0])), *_tensors(pngs[0], webps[1])]


def wrong_request(rights: list[Sent], seed: int, index: int) -> Sent:
    """One of the right requests, changed in one to four places; `seed` and `index` make it again."""
    chance = random.Random(f"{seed}:{index}")
    sent = chance.choice(rights)
    body = bytearray(sent.body)
    for _ in range(chance.randint(1, 4)):
        chance.choice(CHANGES)(chance, body)
    headers = dict(sent.headers)
    if JSON_BYTES in headers and chance.random() < 0.3:
        headers[JSON_BYTES] = str(int(headers[JSON_BYTES]) + chance.choice((-1, 1, -10, 10, 10**9)))
    return Sent(sent.path, headers, bytes(body))


def _flip(chance, body):
    if body:
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)


def _cut(chance, body):
    del body[chance.randint(0, len(body)) :]


def _remove(chance, body):
    start, stop = _span(chance, body)
    del body[start:stop]


def _repeat(chance, body):
    start, stop = _span(chance, body)
    body[start:start] = body[start:stop] * chance.choice((1, 1, 1, 100))


def _move(chance, body):
    start, stop = _span(chance, body)
    part = body[start:stop]
    del body[start:stop]
    place = chance.randint(0, len(body))
    body[place:place] = part


def _overwrite(chance, body):
    start, stop = _span(chance, body)
    body[start:stop] = chance.randbytes(stop - start)


def _lie_about_a_length(chance, body):
    """Length fields are two or four bytes, big-endian in JPEG and PNG, little-endian in WebP and tensors."""
    form, most = chance.choice((("<H", 0xFFFF), (">H", 0xFFFF), ("<I", 0xFFFFFFFF), (">I", 0xFFFFFFFF)))
    if len(body) >= struct.calcsize(form):
        value = chance.choice((0, 1, most, most >> 1, (most >> 1) + 1, chance.randint(0, most)))
        # most length fields stand near the front
        last = len(body) - struct.calcsize(form)
        struct.pack_into(form, body, chance.randint(0, min(last, chance.choice((64, last)))), value)


def _change_a_number(chance, body):
    """Of JSON, or of a form's header."""
    digits = [place for place, byte in enumerate(body[:2000]) if 48 <= byte < 58]
    if digits:
        place = chance.choice(digits)
        body[place : place + 1] = chance.choice(NUMBERS)


NUMBERS = (b"-1", b"0", b"1e999", b"2147483648", b"99999999999999999999", b"9" * 5000, b"null", b'"1"', b"[]", b"NaN")
CHANGES = (_flip, _flip, _cut, _remove, _repeat, _move, _overwrite, _lie_about_a_length, _change_a_number)


def _span(chance, body):
    start = chance.randint(0, len(body))
    return start, min(len(body), start + chance.choice((1, 4, 16, 200)))


def _form(*files):
    head = '--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\nContent-Type: image/png\r\n\r\n'
    body = b"".join(head.encode() + file + b"\r\n" for file in files) + b"--x--\r\n"
    return Sent("/classify", {"Content-Type": "multipart/form-data; boundary=x"}, body)


def _json(content, path="/classify"):
    return Sent(path, {"Content-Type": "application/json"}, json.dumps(content).encode())


def _tensors(*files):
    pixels = np.random.default_rng(1).integers(0, 256, (2, 3, SIDE, SIDE), dtype=np.uint8)
    floats = (pixels / np.float32(255)).astype("<f4")
    prefixed = b"".join(struct.pack("<I", len(file)) + file for file in files)
    yield _json({"inputs": [_input("FP32", pixels.shape, data=floats.round(2).tolist())]}, INFER)
    yield _json({"inputs": [_input("UINT8", pixels.shape, data=pixels.ravel().tolist())]}, INFER)
    yield _json({"inputs": [_input("BYTES", [2], data=as_json(*files)["images"])]}, INFER)
    yield _with_binary("FP32", pixels.shape, floats.tobytes())
    yield _with_binary("UINT8", pixels.shape, pixels.tobytes(), classification=2)
    yield _with_binary("BYTES", [2], prefixed)


def _input(datatype, shape, **others):
    return {"name": "images", "datatype": datatype, "shape": list(shape), **others}


def _with_binary(datatype, shape, binary, **output):
    content = {"inputs": [_input(datatype, shape, parameters={"binary_data_size": len(binary)})]}
    content["outputs"] = [{"name": "logits", "parameters": {"binary_data": True, **output}}]
    head = json.dumps(content).encode()
    return Sent(INFER, {JSON_BYTES: str(len(head))}, head + binary)
