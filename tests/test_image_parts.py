"""Files of so many parts that opening them takes long are refused before that."""

import io
import struct
import zlib

import numpy as np
import pytest
from bombs import png_chunk
from conftest import encoded
from PIL import Image
from test_preprocessing import SIZE, noise, pixels

from fsr_serve.errors import RequestError
from fsr_serve.preprocessing import PixelBudget, decode_if_quick


def segment(marker, content):
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def with_segments(*segments):
    """A JPEG with these before all others, which is not so plain that Pillow is left out."""
    file = encoded(noise(40, 30), "JPEG")
    return file[:2] + b"".join(segments) + file[2:]


def index_of_two_pictures():
    """The segment by which cameras say that a file holds several, after which Pillow calls it an MPO."""
    entries = struct.pack("<LLLHH", 0x030000, 10, 0, 0, 0) + struct.pack("<LLLHH", 0, 10, 100, 0, 0)
    tags = struct.pack("<HHLL", 0xB001, 4, 1, 2) + struct.pack("<HHLL", 0xB002, 7, len(entries), 38)
    return segment(0xE2, b"MPF\0II*\0" + struct.pack("<LH", 8, 2) + tags + struct.pack("<L", 0) + entries)


@pytest.mark.parametrize("index", [b"", index_of_two_pictures()], ids=["plain", "with an index"])
def test_a_jpeg_of_very_many_scans_is_refused(index):
    file = with_segments(index)
    assert Image.open(io.BytesIO(file)).format == ("MPO" if index else "JPEG")
    scans = file[:-2] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" * 300 + file[-2:]
    with pytest.raises(RequestError, match="more than 64 scans"):
        pixels(scans)


def with_chunks(chunks):
    """A PNG with these after its header."""
    file = encoded(noise(32, 32))
    return file[:33] + chunks + file[33:]


PROFILE = png_chunk(b"iCCP", b"p\0\0" + zlib.compress(b"a" * 10**6))
MANY_PARTS = {
    "empty segments": (with_segments(segment(0xE2, b"") * 1001), "more than 1000 segments"),
    "bytes between segments": (with_segments(segment(0xE2, b"") + b"\0" * 1000), "more than 1000 segments"),
    "fill bytes": (with_segments(b"\xff" * 1001), "more than 1000 segments"),
    "markers alone": (with_segments(b"\xff\xd0" * 1001), "more than 1000 segments"),
    "segments of no length": (with_segments(b"\xff\xe2\0\0" * 1001), "more than 1000 segments"),
    "pieces of EXIF": (with_segments(segment(0xE1, b"Exif\0\0") * 65), "65 parts of Exif, more than 64"),
    "empty chunks": (with_chunks(png_chunk(b"prVt", b"") * 1001), "more than 1000 segments or chunks"),
    "pieces of pixels": (with_chunks(png_chunk(b"IDAT", b"") * 10_001), "more than 10000 chunks of pixels"),
    "colour profiles": (with_chunks(2 * PROFILE), "2 parts of iCCP, more than 1"),
}


@pytest.mark.parametrize(("file", "message"), MANY_PARTS.values(), ids=MANY_PARTS)
def test_a_file_of_very_many_parts_is_refused_before_pillow_goes_through_them(file, message, monkeypatch):
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(RequestError, match=message):
        pixels(file)


def test_files_of_many_parts_are_left_to_a_thread():
    for file in (with_segments(index_of_two_pictures() * 101), with_chunks(png_chunk(b"prVt", b"") * 101)):
        assert decode_if_quick(file, SIZE, max_bytes=10**6, budget=PixelBudget(1200, 1200)) is None
        assert pixels(file).shape == (3, 32, 32)


def test_what_follows_a_picture_is_no_part_of_it():
    film = b"\0\0\0\x18ftypmp42" + b"\xff\xda" * 100  # phones put one behind a photo; by chance its bytes are these
    assert np.array_equal(pixels(with_segments() + film), pixels(with_segments()))
    padding = bytes(50_000)
    assert np.array_equal(pixels(encoded(noise(32, 32)) + padding), pixels(encoded(noise(32, 32))))


HIDING = {
    "an end in a comment": b"\xff\xfe\0\x04\xff\xd9",
    "a fill byte": b"\xff\xff\xfe\0\x02",
    "a marker that libjpeg passes over": b"\xff\x02\x7f\xf0",
}


@pytest.mark.parametrize("hiding", HIDING.values(), ids=HIDING)
def test_scans_that_something_is_put_between_are_counted(hiding):
    file = with_segments()
    scans = file[:-2] + (hiding + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0") * 300 + file[-2:]
    with pytest.raises(RequestError, match="more than 64 scans"):
        pixels(scans)


def test_segments_between_scans_are_bounded():
    file = with_segments()
    scan = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0"
    with pytest.raises(RequestError, match="more than 64 scans"):
        pixels(file[:-2] + scan + b"\xff\xfe\0\x02" * 100_000 + scan * 70 + file[-2:])
