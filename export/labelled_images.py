"""Labelled images as the server sees them: encoded files through its own decoding. No torch."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import numpy.typing as npt

from fsr_serve.artifact import Manifest
from fsr_serve.errors import RequestError
from fsr_serve.preprocessing import PixelBudget, Pixels, decode, to_floats
from fsr_serve.session import Floats
from fsr_serve.settings import PILLOW_PIXELS
from training.source import DataError, open_split, spread


@dataclass(frozen=True)
class LabelledImages:
    """images float32 (n, 3, h, w) in [0, 1], labels int64 (n,)."""

    images: Floats
    labels: npt.NDArray[np.int64]
    sha256: str
    """Of pixels, labels and class names; equal to `training.data.ImageData.sha256` of the same pixels."""

    def part(self, chosen: slice | npt.NDArray[np.int64]) -> "LabelledImages":
        """Some of them; `sha256` stays that of all."""
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])


def load_as_served(source: str, split: str, manifest: Manifest, count: int | None) -> LabelledImages:
    """The images of a split, `count` of them at even distances, decoded as the server decodes uploads.

    Raises DataError when the classes are not the model's or an image cannot be read.
    """
    opened = open_split(source, split)
    if opened.classes != manifest.classes:
        raise DataError(
            f"the data has the {len(opened.classes)} classes {', '.join(opened.classes[:10])}; the model has the "
            f"{len(manifest.classes)} classes {', '.join(manifest.classes[:10])}. Say by --data where those lie"
        )
    total = len(opened.labels)
    if count is not None and not 0 < count <= total:
        raise DataError(f"images is {count}; expected 1 to {total}")
    chosen = spread(total, count or total)
    table = opened.table.cast_column(opened.image_column, datasets.Image(decode=False))
    pixels = [
        _decoded(row[opened.image_column], int(index), source, manifest)
        for index, row in zip(chosen, table.select(chosen), strict=True)
    ]
    labels = opened.labels[chosen]
    digest = hashlib.sha256("\n".join(opened.classes).encode())
    batch = np.stack(pixels)
    digest.update(np.ascontiguousarray(batch).data)
    digest.update(labels.data)
    return LabelledImages(to_floats([batch], len(batch)), labels, digest.hexdigest())


def _decoded(image: dict | None, index: int, source: str, manifest: Manifest) -> Pixels:
    if image is None:
        raise DataError(f"image {index} of {source!r} is missing; expected one for each label. Leave that row out")
    try:
        encoded = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
        budget = PixelBudget(PILLOW_PIXELS, PILLOW_PIXELS)
        return decode(encoded, manifest.preprocessing, max_bytes=len(encoded), budget=budget)
    except (OSError, RequestError) as error:
        raise DataError(f"image {index} of {source!r} cannot be read: {error}") from error
