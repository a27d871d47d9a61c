"""The parts of an image file that Pillow goes through in Python when it opens it, counted before it does.

Of some kinds it copies what came before, or inflates a megabyte, for each one: a file of small parts takes it minutes.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import islice

from PIL.JpegImagePlugin import MARKER

from fsr_serve.errors import RequestError

PARTS = 1000
"""A file of 16 MiB in JPEG segments of full size has 256."""
DATA_PARTS = 10_000
"""Of a PNG's pixels: libpng's are of 8 KiB."""
REPEATED = {b"Exif": 64, b"iCCP": 1}
"""Parts of a kind that cost more the more there are, and that honest files have one of, or a few."""

JPEG_START, PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
START_OF_SCAN = 0xFFDA
PNG_DATA = (b"IDAT", b"fdAT")


def check_parts(encoded: bytes) -> int:
    """How many parts come before a JPEG's pixels, or beside those of a PNG; 0 for WebP, whose library does that.

    Raises RequestError for more than an honest file has.
    """
    if encoded.startswith(JPEG_START):
        found = Counter(islice(_jpeg_parts(encoded), PARTS + 1))
    elif encoded.startswith(PNG_START):
        found = Counter(islice(_png_parts(encoded), PARTS + DATA_PARTS + 1))
    else:
        return 0
    data = sum(found[kind] for kind in PNG_DATA)
    others = found.total() - data
    if others > PARTS:
        raise _damaged(f"more than {PARTS} segments or chunks")
    if data > DATA_PARTS:
        raise _damaged(f"more than {DATA_PARTS} chunks of pixels")
    for kind, most in REPEATED.items():
        if found[kind] > most:
            raise _damaged(f"{found[kind]} parts of {kind.decode()}, more than {most}")
    return others


def _jpeg_parts(encoded: bytes) -> Iterator[bytes]:
    """What precedes the first scan: of a segment the first four bytes, of anything else that is passed over none."""
    position = 2
    while position + 1 < len(encoded):
        marker = int.from_bytes(encoded[position : position + 2])
        if marker == START_OF_SCAN:
            return
        has_length = marker in MARKER and MARKER[marker][2] is not None
        if has_length:
            start = position + 4
            yield encoded[start : start + 4]
            position += 2 + max(int.from_bytes(encoded[position + 2 : start]), 2)
        else:
            yield b""
            position += 1 if marker >> 8 != 0xFF or marker == 0xFFFF else 2


def _png_parts(encoded: bytes) -> Iterator[bytes]:
    """The types of all chunks; Pillow reads nothing behind the last."""
    position, kind = len(PNG_START), b""
    while position + 8 <= len(encoded) and kind != b"IEND":
        kind = encoded[position + 4 : position + 8]
        yield kind
        position += 12 + int.from_bytes(encoded[position : position + 4])


def _damaged(what: str) -> RequestError:
    return RequestError(400, "damaged_image", f"the image file has {what}; write it anew with any image program")
