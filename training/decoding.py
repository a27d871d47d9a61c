"""Encoded pictures -> RGB of the size that the network takes, with the pixels that the server makes of them.

This holds for pictures of 8 bits a channel without transparency, which is dropped here; the server lays it over white.
"""

import io
from collections.abc import Mapping
from typing import Any, Literal

from PIL import Image, ImageOps

JpegScale = Literal["full", "reduced"]
"""How large JPEGs are decoded. reduced: at 1/2, 1/4 or 1/8, the smallest with twice the longer side that is wanted."""


def decode(file: Mapping[str, Any], image_shape: tuple[int, int] | None, jpeg_scale: JpegScale) -> Image.Image:
    """A file as `datasets` has it undecoded, by `bytes` or `path`, upright and in RGB.

    With `image_shape` (height, width) its largest centred part of that aspect ratio is resized to it.
    """
    with Image.open(file["path"] if file["bytes"] is None else io.BytesIO(file["bytes"])) as image:
        if image_shape is not None and jpeg_scale == "reduced":
            side = 2 * max(image_shape)
            image.draft(None, (side, side))  # does nothing to other formats
        picture = ImageOps.exif_transpose(image).convert("RGB")
    return picture if image_shape is None else ImageOps.fit(picture, image_shape[::-1], Image.Resampling.BILINEAR)
