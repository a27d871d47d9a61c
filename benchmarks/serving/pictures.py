"""What is sent: pictures that are the same in every run, and the bodies they travel in."""

import io
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

JPEG_QUALITY = 75
PHOTOGRAPH = (4000, 3000)
BOUNDARY = "a-boundary-in-no-picture"


class Body(NamedTuple):
    """The body of one request, with the headers it needs."""

    content: bytes
    headers: dict[str, str]


Encode = Callable[[bytes], Body]


def small_jpegs(count: int, height: int, width: int) -> list[bytes]:
    """Smooth random pictures with a little noise, of that size."""
    random = np.random.default_rng(0)
    return [_jpeg(_smooth(random, (width, height), 8), JPEG_QUALITY) for _ in range(count)]


def photograph() -> bytes:
    """12 megapixels, with as many bytes as a camera's: smooth parts and grain."""
    return _jpeg(_smooth(np.random.default_rng(1), PHOTOGRAPH, 40), 90)


def raw(jpeg: bytes) -> Body:
    """The file is the body."""
    return Body(jpeg, {"Content-Type": "image/jpeg"})


def form(field: str) -> Encode:
    """A multipart form with one file in that field."""

    def encode(jpeg: bytes) -> Body:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="a.jpg"\r\n'
        content = head.encode() + b"Content-Type: image/jpeg\r\n\r\n" + jpeg + f"\r\n--{BOUNDARY}--\r\n".encode()
        return Body(content, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})

    return encode


def tensor(jpegs: Sequence[bytes]) -> Body:
    """An Open Inference request: the pictures as one binary FP32 tensor (n, 3, h, w), binary logits wanted."""
    images = np.stack([np.asarray(Image.open(io.BytesIO(jpeg)), np.float32).transpose(2, 0, 1) for jpeg in jpegs])
    values = (images / np.float32(255)).tobytes()
    request = {
        "inputs": [
            {
                "name": "images",
                "shape": images.shape,
                "datatype": "FP32",
                "parameters": {"binary_data_size": len(values)},
            }
        ],
        "outputs": [{"name": "logits", "parameters": {"binary_data": True}}],
    }
    header = json.dumps(request).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(header))}
    return Body(header + values, headers)


def _smooth(random: np.random.Generator, size: tuple[int, int], cell: int) -> Image.Image:
    """A picture of that (width, height) whose colours change over `cell` pixels."""
    width, height = size
    coarse = random.integers(0, 256, (-(-height // cell) + 1, -(-width // cell) + 1, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.int16)
    noise = random.integers(-8, 9, (height, width, 1), dtype=np.int16)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def _jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()
