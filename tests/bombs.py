"""Small requests that would cost much, and how each is to be answered."""

import io
import json
import struct
import zlib
from functools import cache

from PIL import Image

MODEL = "/v2/models/colours"
INFER = f"{MODEL}/infer"
PNG = {"Content-Type": "image/png"}
WEBP = {"Content-Type": "image/webp"}
JSON = {"Content-Type": "application/json"}
MEGABYTE = 2**20


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, *chunks):
    """A PNG file whose header claims this size."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IEND", b"")


def flat(side, format, **options):
    file = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(file, format, **options)
    return file.getvalue()


@cache
def deflated_zeros():
    """300 MB in 300 kB."""
    deflate = zlib.compressobj()
    return b"".join(deflate.compress(bytes(MEGABYTE)) for _ in range(300)) + deflate.flush()


def overlapping_tags(count):
    """A megabyte of EXIF, of which each tag claims nearly all."""
    entries = (struct.pack("<HHLL", 40_000 + number, 7, MEGABYTE - 100, 8) for number in range(count))
    return (b"II*\0" + struct.pack("<LH", 8, count) + b"".join(entries)).ljust(MEGABYTE, b"\0")


def tensor(datatype, shape, **others):
    return json.dumps({"inputs": [{"name": "images", "datatype": datatype, "shape": shape, **others}]}).encode()


def binary(size):
    return {"parameters": {"binary_data_size": size}}


HUGE = 2**31
PIXELS = [HUGE // (3 * 16 * 16), 3, 16, 16]

# path, headers, body, status, code on /classify
REFUSED = {
    "a PNG that claims 50,000 x 50,000": ("/classify", PNG, png(50_000, 50_000), 413, "too_many_pixels"),
    "a PNG that claims 2^31 x 2^31": ("/classify", PNG, png(2**31 - 1, 2**31 - 1), 413, "too_many_pixels"),
    "a text of 300 MB in a PNG": (
        "/classify",
        PNG,
        lambda: png(16, 16, png_chunk(b"zTXt", b"a\0\0" + deflated_zeros())),
        400,
        "unreadable_image",
    ),
    "a profile of 300 MB in a PNG": (
        "/classify",
        PNG,
        lambda: png(16, 16, png_chunk(b"iCCP", b"a\0\0" + deflated_zeros())),
        400,
        "unreadable_image",
    ),
    "EXIF whose 600 tags each claim the same megabyte": (
        "/classify",
        PNG,
        lambda: png(16, 16, png_chunk(b"eXIf", overlapping_tags(600)), png_chunk(b"IDAT", zlib.compress(bytes(784)))),
        200,
        None,
    ),
    "a small PNG with the pixels of a huge one": (
        "/classify",
        PNG,
        lambda: png(16, 16, png_chunk(b"IDAT", deflated_zeros())),
        200,
        None,
    ),
    "a flat PNG of 100 million pixels": ("/classify", PNG, lambda: flat(10_000, "PNG"), 413, "too_many_pixels"),
    "a flat WebP of 100 million pixels": ("/classify", WEBP, lambda: flat(10_000, "WEBP"), 413, "too_many_pixels"),
    "a flat PNG of the most pixels that are taken": ("/classify", PNG, lambda: flat(5_656, "PNG"), 200, None),
    "10,000 files in a form": (
        "/classify",
        {"Content-Type": "multipart/form-data; boundary=x"},
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n\r\n' * 10_000 + b"--x--\r\n",
        413,
        "too_many_images",
    ),
    "10,000 fields in a form": (
        "/classify",
        {"Content-Type": "multipart/form-data; boundary=x"},
        b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n\r\n' * 10_000 + b"--x--\r\n",
        400,
        "malformed_multipart",
    ),
    "millions of values in JSON": (
        "/classify",
        JSON,
        b'{"images": [' + b'"",' * 10**7 + b'""]}',
        413,
        "too_many_values",
    ),
    "millions of lists in JSON": ("/classify", JSON, b"[" * 3 * 10**7, 413, "too_many_values"),
    "a number of millions of digits": ("/classify", JSON, b"1" * 3 * 10**7, 400, "malformed_json"),
    "a tensor that claims 2 GB": (INFER, JSON, tensor("UINT8", PIXELS, data=[0]), 413, None),
    "a binary tensor that claims 2 GB": (INFER, JSON, tensor("UINT8", PIXELS, **binary(HUGE)), 413, None),
    "2 GB of binary that do not come": (INFER, JSON, tensor("UINT8", [1, 3, 16, 16], **binary(HUGE)), 400, None),
    "an empty tensor of huge sides": (INFER, JSON, tensor("FP32", [0, HUGE, HUGE, HUGE], data=[]), 400, None),
    "millions of numbers in a tensor": (INFER, JSON, tensor("FP32", [1, 3, 16, 16], data=[0] * 10**7), 413, None),
}


def is_cheap(name):
    return not callable(REFUSED[name][2]) and "millions" not in name
