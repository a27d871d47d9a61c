"""JPEG files that need nothing but decoding. Of a small one Pillow's ten times longer is spent in Python."""

import re
from collections.abc import Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt
import simplejpeg

from fsr_serve.artifact import Preprocessing

JPEG_SCANS = 64
"""More scans than any camera or encoder writes: each costs a pass over the whole image."""

MARKERS = 2_000
"""Of segments and scans together: `image_parts` has half as many before the first scan."""

START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"

MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
"""With a length behind it, or the end; the others are part of the pixels, stand alone or are passed over by libjpeg."""

NOTES = b"\xff\xe1"
"""Starts EXIF and XMP, which may say that the picture is turned."""


def has_too_many_scans(encoded: bytes) -> bool:
    """Up to the end of the picture: what cameras put behind it, such as a film, has the same bytes by chance."""
    if encoded.count(START_OF_SCAN) <= JPEG_SCANS:
        return False
    markers = list(islice(_markers(encoded), MARKERS + 1))
    return len(markers) > MARKERS or markers.count(START_OF_SCAN) > JPEG_SCANS


def _markers(encoded: bytes) -> Iterator[bytes]:
    """Those that libjpeg sees, up to the end of the picture: not what lies within segments."""
    position = 2
    while (match := MARKER.search(encoded, position)) and match[0] != END_OF_IMAGE:
        yield match[0]
        start = match.end()
        position = start + max(int.from_bytes(encoded[start : start + 2]), 2)


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
