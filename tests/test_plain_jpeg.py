"""JPEG files decoded without Pillow: the same pixels, or none."""

import io
import random

import numpy as np
import pytest
from PIL import ExifTags, Image

from fsr_serve.artifact import Preprocessing
from fsr_serve.errors import RequestError
from fsr_serve.plain_jpeg import NOTES, decode_plain
from fsr_serve.preprocessing import PixelBudget, decode, decode_if_quick

SIZE = Preprocessing(height=24, width=40)


def _picture(mode: str = "RGB", height: int = 24, width: int = 40) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def _jpeg(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", **options)
    return file.getvalue()


def _pillow(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).transpose(2, 0, 1)


@pytest.mark.parametrize(
    "options", [{}, {"quality": 95, "subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"icc_profile": b"x"}]
)
def test_a_plain_jpeg_has_the_pixels_that_pillow_gives(options):
    encoded = _jpeg(_picture(), **options)
    found = decode_plain(encoded, SIZE)
    assert found is not None
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, _pillow(encoded))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colours_are_left_to_pillow(mode):
    assert decode_plain(_jpeg(_picture(mode)), SIZE) is None


def test_another_size_is_left_to_pillow():
    assert decode_plain(_jpeg(_picture(width=48)), SIZE) is None


def test_a_picture_that_notes_may_turn_is_left_to_pillow():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    encoded = _jpeg(_picture(), exif=exif)
    assert NOTES in encoded
    assert decode_plain(encoded, SIZE) is None
    turned = decode(encoded, SIZE, max_bytes=len(encoded), budget=PixelBudget(1000, 1000))
    np.testing.assert_array_equal(turned, _pillow(encoded)[:, ::-1, ::-1])


def test_damaged_files_have_the_pixels_that_pillow_gives_or_none():
    encoded = _jpeg(_picture())
    shaken = random.Random(0)
    found = 0
    for _ in range(300):
        damaged = bytearray(encoded)
        damaged[shaken.randrange(len(damaged))] = shaken.randrange(256)
        pixels = decode_plain(bytes(damaged), SIZE)
        if pixels is not None:
            found += 1
            np.testing.assert_array_equal(pixels, _pillow(bytes(damaged)))
    assert found
    assert all(decode_plain(encoded[:end], SIZE) is None for end in range(len(encoded)))


@pytest.mark.parametrize("decoder", [decode, decode_if_quick])
def test_a_plain_jpeg_is_held_to_the_same_bounds(decoder):
    encoded = _jpeg(_picture())
    budget = PixelBudget(24 * 40, 24 * 40 + 1)
    assert decoder(encoded, SIZE, max_bytes=len(encoded), budget=budget) is not None
    assert budget.left == 1
    with pytest.raises(RequestError, match="40x24 pixels; at most 1 "):
        decoder(encoded, SIZE, max_bytes=len(encoded), budget=budget)
    with pytest.raises(RequestError, match=f"at most {len(encoded) - 1} are accepted"):
        decoder(encoded, SIZE, max_bytes=len(encoded) - 1, budget=PixelBudget(1000, 1000))
