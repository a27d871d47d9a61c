"""Encoded pictures -> pixels of the size that the network takes. Everything is bounded before memory is spent."""

import io
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from fsr_serve.artifact import Preprocessing
from fsr_serve.errors import RequestError

FORMATS = ("JPEG", "PNG", "WEBP")

Pixels = npt.NDArray[np.uint8]


def decode(encoded: bytes, preprocessing: Preprocessing, *, max_bytes: int, max_pixels: int) -> Pixels:
    """One JPEG, PNG or WebP file -> RGB uint8 (3, height, width).

    The format is told by content. EXIF orientation is applied, transparency is laid over white, of an animation
    the first frame counts. Raises RequestError for a file that is empty, too large, of another format or damaged.
    """
    if not encoded:
        raise RequestError(400, "empty_image", "the image is 0 bytes long; expected a JPEG, PNG or WebP file")
    if len(encoded) > max_bytes:
        raise RequestError(
            413, "image_too_large", f"the image is {len(encoded)} bytes long; at most {max_bytes} are accepted"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_many_pixels("more", max_pixels) from error
    except Exception as error:  # decoders raise many kinds on garbage
        raise RequestError(
            400,
            "unreadable_image",
            f"the {len(encoded)} bytes are no image that can be read; expected JPEG, PNG or WebP",
        ) from error
    if image.width * image.height > max_pixels:
        raise _too_many_pixels(f"{image.width}x{image.height}", max_pixels)
    try:
        image.load()
        rgb = _to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # decoders raise many kinds on damage
        raise RequestError(
            400, "damaged_image", f"the {image.format} image is truncated or damaged: {error}"
        ) from error
    return np.asarray(_fit(rgb, preprocessing)).transpose(2, 0, 1)


def to_floats(pixels: list[Pixels]) -> npt.NDArray[np.float32]:
    """Images uint8 (3, h, w) -> one batch float32 (n, 3, h, w) in [0, 1]."""
    return np.stack(pixels).astype(np.float32) / np.float32(255)


def _fit(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Cut the largest centred part of the wanted aspect ratio and resize it, with antialiasing, in one step."""
    size = (preprocessing.width, preprocessing.height)
    if image.size == size:
        return image
    scale = min(image.width / size[0], image.height / size[1])
    width, height = size[0] * scale, size[1] * scale
    left, top = (image.width - width) / 2, (image.height - height) / 2
    return image.resize(size, Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _too_many_pixels(found: str, max_pixels: int) -> RequestError:
    return RequestError(
        413, "too_many_pixels", f"the image has {found} pixels; at most {max_pixels} in all are accepted"
    )
