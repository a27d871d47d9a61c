"""Encoded pictures -> pixels of the size that the network takes. Everything is bounded before memory is spent."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

from fsr_serve.artifact import Preprocessing
from fsr_serve.errors import RequestError
from fsr_serve.image_parts import check_parts
from fsr_serve.plain_jpeg import JPEG_SCANS, decode_plain, has_too_many_scans

# Python keeps every text that was warned of, and these hold numbers that clients choose
warnings.filterwarnings("ignore", module=r"PIL\.")

FORMATS = ("JPEG", "PNG", "WEBP")

QUICK_BYTES = 16_384
QUICK_PIXELS = 4096
"""Up to so many an image takes about 0.2 ms to decode, and handing it to a thread and back more than that."""

QUICK_PARTS = 100
"""Of the file, which Pillow goes through one by one."""

COMPRESSED_NOTES = (b"zTXt", b"iTXt", b"iCCP")
"""PNG's chunks that Pillow inflates, to up to 1 MiB each, when it opens a file."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What an EXIF orientation asks for."""

Pixels = npt.NDArray[np.uint8]
Images = npt.NDArray[np.uint8] | npt.NDArray[np.float32]


@dataclass
class PixelBudget:
    """Pixels that may be decoded: at most `per_image` at once and `left` in the rest of the request."""

    per_image: int
    left: int

    def spend(self, width: int, height: int) -> None:
        """Take an image's pixels off the budget. Raises RequestError when they are more than it allows."""
        allowed = min(self.per_image, self.left)
        if width * height > allowed:
            limit = "in one image" if self.per_image <= self.left else "in what is left to this request"
            raise RequestError(
                413,
                "too_many_pixels",
                f"the image has {width}x{height} pixels; at most {allowed} are accepted {limit}",
            )
        self.left -= width * height


def decode(encoded: bytes, preprocessing: Preprocessing, *, max_bytes: int, budget: PixelBudget) -> Pixels:
    """One JPEG, PNG or WebP file -> RGB uint8 (3, height, width).

    The format is told by content. EXIF orientation is applied, transparency is laid over white, of an animation
    the first frame counts. Raises RequestError for a file that is empty, too large, of another format or damaged.
    """
    if (plain := _plain(encoded, preprocessing, max_bytes, budget)) is not None:
        return plain
    return _pixels(_open(encoded, max_bytes, budget), preprocessing)


def decode_if_quick(
    encoded: bytes, preprocessing: Preprocessing, *, max_bytes: int, budget: PixelBudget
) -> Pixels | None:
    """As `decode` where that takes no longer than handing it to a thread and back, else None and nothing spent."""
    if len(encoded) > QUICK_BYTES:
        return None
    is_small = preprocessing.height * preprocessing.width <= QUICK_PIXELS
    if is_small and (plain := _plain(encoded, preprocessing, max_bytes, budget)) is not None:
        return plain
    if any(name in encoded for name in COMPRESSED_NOTES) or check_parts(encoded) > QUICK_PARTS:
        return None
    before = budget.left
    image = _open(encoded, max_bytes, budget)
    if image.width * image.height > QUICK_PIXELS:
        budget.left = before
        return None
    return _pixels(image, preprocessing)


def to_floats(images: Sequence[Images], count: int) -> npt.NDArray[np.float32]:
    """Several (n, 3, h, w), uint8 or float32 in [0, 1] -> one batch float32 (count, 3, h, w) in [0, 1].

    `count` is at least the images there are; the rest of the batch is zero.
    """
    end = sum(map(len, images))
    batch = np.empty((count, *images[0].shape[1:]), np.float32)
    batch[end:] = 0
    # few calls for all images: during each the event loop may run, and this thread then waits for its turn
    np.concatenate(images, out=batch[:end])
    scales = np.repeat([255 if some.dtype == np.uint8 else 1 for some in images], [len(some) for some in images])
    batch[:end] /= scales.astype(np.float32).reshape(-1, 1, 1, 1)
    return batch


def _plain(encoded: bytes, preprocessing: Preprocessing, max_bytes: int, budget: PixelBudget) -> Pixels | None:
    """What `decode_plain` gives, within the same bounds as any other file."""
    pixels = decode_plain(encoded, preprocessing) if len(encoded) <= max_bytes else None
    if pixels is not None:
        budget.spend(preprocessing.width, preprocessing.height)
    return pixels


def _open(encoded: bytes, max_bytes: int, budget: PixelBudget) -> Image.Image:
    """Read the header only, and see that the rest may be read."""
    if not encoded:
        raise RequestError(400, "empty_image", "the image is 0 bytes long; expected a JPEG, PNG or WebP file")
    if len(encoded) > max_bytes:
        raise RequestError(
            413, "image_too_large", f"the image is {len(encoded)} bytes long; at most {max_bytes} are accepted"
        )
    check_parts(encoded)
    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise RequestError(413, "too_many_pixels", f"the image is too large: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise many kinds on garbage
        raise RequestError(
            400,
            "unreadable_image",
            f"the {len(encoded)} bytes are no image that can be read; expected JPEG, PNG or WebP",
        ) from error
    budget.spend(image.width, image.height)
    if isinstance(image, JpegImageFile) and has_too_many_scans(encoded):  # one with an index of others is an "MPO"
        raise RequestError(400, "damaged_image", f"the JPEG image has more than {JPEG_SCANS} scans")
    return image


def _pixels(image: Image.Image, preprocessing: Preprocessing) -> Pixels:
    try:
        if preprocessing.jpeg_scale == "reduced":
            side = 2 * max(preprocessing.height, preprocessing.width)
            image.draft(None, (side, side))  # does nothing to other formats
        return np.asarray(_to_rgb(_fit(_upright(image), preprocessing))).transpose(2, 0, 1)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise many kinds on damage
        raise RequestError(
            400, "damaged_image", f"the {image.format} image is truncated or damaged: {error}"
        ) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # a broken note about the picture does not make the picture unreadable
        orientation = None
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _fit(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Cut the largest centred part of the wanted aspect ratio and resize it, with antialiasing, in one step."""
    size = (preprocessing.width, preprocessing.height)
    image.load()
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.size == size:
        return image
    blendable = "RGBA" if image.has_transparency_data else "L" if image.mode == "L" else "RGB"
    if image.mode != blendable:
        image = image.convert(blendable)
    scale = min(image.width / size[0], image.height / size[1])
    width, height = size[0] * scale, size[1] * scale
    left, top = (image.width - width) / 2, (image.height - height) / 2
    return image.resize(size, Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey in 8 bits: Pillow's own conversion would clip at 255, and forget which grey is transparent."""
    values = np.asarray(image)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    if "transparency" not in image.info:
        return grey
    opaque = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
    return Image.merge("LA", (grey, Image.fromarray(opaque)))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
