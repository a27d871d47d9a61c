"""JPEG files that need nothing but decoding. Of a small one Pillow's ten times longer is spent in Python."""

import numpy as np
import numpy.typing as npt
import simplejpeg

from fsr_serve.artifact import Preprocessing

JPEG_SCANS = 64
"""More scans than any camera or encoder writes: each costs a pass over the whole image."""

START_OF_SCAN = b"\xff\xda"

NOTES = b"\xff\xe1"
"""Starts EXIF and XMP, which may say that the picture is turned."""


def has_too_many_scans(encoded: bytes) -> bool:
    return encoded.count(START_OF_SCAN) > JPEG_SCANS


def decode_plain(encoded: bytes, size: Preprocessing) -> npt.NDArray[np.uint8] | None:
    """RGB uint8 (3, height, width) of a colour JPEG that has this size already and no notes; else None.

    The pixels are those that Pillow gives. None says nothing about the file: a damaged one is None too.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
        if (height, width, colours) != (size.height, size.width, "YCbCr"):
            return None
        if NOTES in encoded or has_too_many_scans(encoded):
            return None
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(encoded)
    except ValueError:  # also where libjpeg would only warn
        return None
    return pixels.transpose(2, 0, 1)
