"""From an encoded picture to pixels: right, bounded, and refused with a reason."""

import contextlib
import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from bombs import png, png_chunk
from conftest import encoded
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin
from servers import ROOT

from fsr_serve.artifact import Preprocessing
from fsr_serve.errors import RequestError
from fsr_serve.preprocessing import PixelBudget, decode, decode_if_quick, to_floats

SIZE = Preprocessing(height=32, width=32)


def pixels(file: bytes, preprocessing=SIZE, max_bytes=10**6, max_pixels=10**6):
    return decode(file, preprocessing, max_bytes=max_bytes, budget=PixelBudget(max_pixels, max_pixels))


def noise(width, height, mode="RGB"):
    random = np.random.default_rng(0)
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    return Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8), mode)


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_an_image_of_the_right_size_passes_unchanged(format):
    image = noise(32, 32)
    found = pixels(encoded(image, format, lossless=True))
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.asarray(image).transpose(2, 0, 1))


def test_jpeg_passes_as_pillow_decodes_it():
    file = encoded(noise(32, 32), "JPEG", quality=80)
    assert np.array_equal(pixels(file), np.asarray(Image.open(io.BytesIO(file))).transpose(2, 0, 1))


@pytest.mark.parametrize(("width", "height"), [(640, 480), (33, 500), (5, 3), (1, 1), (32, 64)])
def test_any_size_becomes_the_size_of_the_network(width, height):
    assert pixels(encoded(noise(width, height))).shape == (3, 32, 32)


def test_the_centre_is_kept_and_not_distorted():
    image = Image.new("RGB", (96, 32), "black")
    image.paste("white", (32, 0, 64, 32))
    assert pixels(encoded(image)).min() == 255


def test_shrinking_is_antialiased():
    """A fine chequerboard becomes grey, not aliased black and white."""
    board = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    found = pixels(encoded(Image.fromarray(board)))
    assert np.abs(found.astype(int) - 127).max() <= 2


REDUCED = Preprocessing(height=32, width=32, jpeg_scale="reduced")


def photograph(width, height):
    """Slow waves, as most of a photograph is."""
    y, x = np.mgrid[:height, :width]
    channels = [128 + 100 * np.sin(x / 90 + y / 140 + shift) for shift in range(3)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


@pytest.mark.parametrize(("size", "scale"), [((800, 600), 8), ((300, 200), 2), ((128, 128), 2), ((127, 200), 1)])
def test_a_large_jpeg_is_decoded_at_the_scale_that_the_manifest_states(size, scale):
    file = encoded(photograph(*size), "JPEG")
    image = Image.open(io.BytesIO(file))
    image.draft(None, (size[0] // scale, size[1] // scale))
    assert image.size == tuple(-(-side // scale) for side in size)
    assert np.array_equal(pixels(file, REDUCED), pixels(encoded(image)))


def test_reduced_scale_shows_the_same_picture():
    file = encoded(photograph(1200, 800), "JPEG", quality=90)
    difference = pixels(file, REDUCED).astype(int) - pixels(file)
    assert np.abs(difference).mean() < 2


def test_other_formats_and_versions_that_do_not_state_it_are_decoded_in_full():
    assert Preprocessing.model_validate({"height": 32, "width": 32, "resize": "bilinear"}) == SIZE
    file = encoded(photograph(800, 600))
    assert np.array_equal(pixels(file, REDUCED), pixels(file))


def test_a_reduced_photograph_is_turned_as_it_should_be():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = pixels(encoded(photograph(400, 300), "JPEG", quality=95, exif=exif), REDUCED)
    upright = pixels(encoded(photograph(400, 300).transpose(Image.Transpose.ROTATE_270), "JPEG", quality=95), REDUCED)
    assert np.abs(turned.astype(int) - upright).mean() < 2


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (32, 32), "black")
    image.paste("white", (0, 0, 32, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter clockwise
    found = pixels(encoded(image, "PNG", exif=exif))
    assert (found[:, :, 20:] > 200).all()
    assert (found[:, :, :12] < 50).all()


def test_a_broken_exif_note_does_not_spoil_a_good_picture():
    good = encoded(noise(32, 32), "JPEG")
    note = b"Exif\0\0garbage!"
    marked = good[:2] + b"\xff\xe1" + struct.pack(">H", len(note) + 2) + note + good[2:]
    assert np.array_equal(pixels(marked), pixels(good))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_does(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(noise(32, 32), "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file))))
    assert np.array_equal(pixels(file), expected.transpose(2, 0, 1))


@pytest.mark.parametrize("format", ["WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(format):
    red, blue = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    file = encoded(red, format, save_all=True, append_images=[blue, blue], duration=100, lossless=True)
    assert Image.open(io.BytesIO(file)).n_frames > 1
    assert np.array_equal(pixels(file), np.asarray(red).transpose(2, 0, 1))


def test_a_request_has_one_pixel_budget_for_all_its_images():
    budget = PixelBudget(per_image=1024, left=2047)
    file = encoded(noise(32, 32))
    decode(file, SIZE, max_bytes=10**6, budget=budget)
    with pytest.raises(RequestError, match="32x32 pixels; at most 1023 are accepted in what is left to this request"):
        decode(file, SIZE, max_bytes=10**6, budget=budget)


def with_note(kind):
    notes = PngImagePlugin.PngInfo()
    if kind == "zTXt":
        notes.add_text("Comment", "a" * 10**6, zip=True)
    if kind == "iTXt":
        notes.add_itxt("Comment", "a" * 10**6, zip=True)
    profile = {"icc_profile": b"a" * 10**6} if kind == "iCCP" else {}
    return encoded(noise(32, 32), pnginfo=notes, **profile)


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP"])
def test_notes_that_pillow_would_inflate_are_left_to_a_thread(kind):
    budget = PixelBudget(1024, 1024)
    assert decode_if_quick(with_note(kind), SIZE, max_bytes=10**6, budget=budget) is None
    assert budget.left == 1024
    assert np.array_equal(pixels(with_note(kind)), pixels(with_note(None)))
    assert decode_if_quick(with_note(None), SIZE, max_bytes=10**6, budget=budget) is not None


@pytest.mark.parametrize("size", [32, 100])
def test_what_transparency_hides_is_not_seen(size):
    hidden = Image.new("RGBA", (size, size), (255, 0, 0, 0))
    assert pixels(encoded(hidden)).min() == 255
    assert pixels(encoded(Image.new("RGB", (size, size), "red"), transparency=(255, 0, 0))).min() == 255


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_colour_mode_becomes_rgb(mode):
    image = Image.new("RGB", (32, 32), (255, 255, 255)).convert(mode)
    assert pixels(encoded(image, "JPEG" if mode == "CMYK" else "PNG")).min() >= 254


def test_sixteen_bit_grey_is_scaled_not_clipped():
    file = encoded(Image.fromarray(np.full((32, 32), 0x4000, dtype=np.uint16)))
    assert np.unique(pixels(file)).tolist() == [0x40]


@pytest.mark.parametrize("size", [32, 100])
def test_of_sixteen_bit_grey_the_transparent_one_is_not_seen(size):
    values = np.full((size, size), 0x4000, dtype=np.uint16)
    values[: size // 2] = 0x1234
    file = encoded(Image.fromarray(values), transparency=0x1234)
    assert pixels(file)[:, 0].min() == 255
    assert pixels(file)[:, -1].tolist() == [[0x40] * 32] * 3


def png_claiming(width, height):
    """A PNG whose header claims any size, with a few bytes of data."""
    return png(width, height, png_chunk(b"IDAT", zlib.compress(b"\0" * 100)))


JPEG = encoded(noise(64, 64), "JPEG")

REFUSED = {
    "empty": (b"", 400, "empty_image", "0 bytes long"),
    "garbage": (b"garbage" * 10, 400, "unreadable_image", "70 bytes are no image"),
    "gif": (encoded(Image.new("RGB", (8, 8)), "GIF"), 400, "unreadable_image", "expected JPEG, PNG or WebP"),
    "truncated": (JPEG[: len(JPEG) // 2], 400, "damaged_image", "JPEG image is truncated or damaged"),
    "header only": (JPEG[:20], 400, "unreadable_image", "no image that can be read"),
    "damaged": (png_claiming(64, 64), 400, "damaged_image", "PNG image is truncated or damaged"),
    "too many bytes": (b"\xff" * (10**6 + 1), 413, "image_too_large", "1000001 bytes long; at most 1000000"),
    "too many pixels": (
        png_claiming(2000, 1000),
        413,
        "too_many_pixels",
        "2000x1000 pixels; at most 1000000 are accepted in one image",
    ),
    "bomb": (png_claiming(60_000, 60_000), 413, "too_many_pixels", "too large"),
}


@pytest.mark.parametrize(("file", "status", "code", "message"), REFUSED.values(), ids=REFUSED)
def test_a_bad_image_is_refused_with_value_and_rule(file, status, code, message):
    with pytest.raises(RequestError, match=message) as refusal:
        pixels(file)
    assert (refusal.value.status, refusal.value.code) == (status, code)


@settings(max_examples=200)
@given(st.sampled_from([JPEG, encoded(noise(40, 30)), encoded(noise(40, 30), "WEBP")]), st.data())
def test_damage_anywhere_gives_pixels_or_a_refusal_never_another_error(file, data):
    content = bytearray(file)
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RequestError):
        assert pixels(bytes(content[: data.draw(st.integers(0, len(content)))])).shape == (3, 32, 32)


def test_pixels_become_one_float_batch_in_zero_to_one():
    images = np.array([0, 51, 255], np.uint8)[:, None, None, None] * np.ones((3, 2, 2), np.uint8)
    batch = to_floats([images[:1], images[1:], np.full((1, 3, 2, 2), 0.5, np.float32)], count=5)
    assert batch.dtype == np.float32
    assert batch.shape == (5, 3, 2, 2)
    assert batch[:, 0, 0, 0].tolist() == pytest.approx([0, 0.2, 1, 0.5, 0])


def test_what_pillow_would_warn_of_is_not_kept_or_printed():
    """Python keeps the text of each warning for good, and clients choose the numbers in these."""
    file = png_claiming(10_000, 10_000)
    code = (
        "from fsr_serve.preprocessing import _open, PixelBudget; "
        f"assert _open({file!r}, 10**9, PixelBudget(10**9, 10**9)).size == (10_000, 10_000)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_batch_of_bytes_and_floats_is_padded_and_lies_between_0_and_1():
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (2, 4, 5, 3), dtype=np.uint8).transpose(0, 3, 1, 2)
    floats = random.random((3, 3, 4, 5), dtype=np.float32)
    batch = to_floats([floats, pixels], 7)
    expected = np.concatenate([floats, pixels.astype(np.float32) / np.float32(255), np.zeros((2, 3, 4, 5))])
    np.testing.assert_array_equal(batch, expected.astype(np.float32))
