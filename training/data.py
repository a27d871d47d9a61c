"""Image data sets as uint8 tensors in memory: a Hugging Face id, or a local folder of parquet or image files."""

import hashlib
from dataclasses import dataclass, replace

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.decoding import JpegScale, decode
from training.source import DataError, open_split, spread

HELD_OUT = 2500
LEAST_SIDE = 8
"""Of images that are resized; the networks shrink features eightfold."""


@dataclass(frozen=True)
class ImageData:
    """pixels uint8 (n, 3, h, w), labels int64 (n,), and the data set's own class names."""

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sha256(self) -> str:
        """Of all pixels, labels and class names: tells whether this is the same data in the same order."""
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for tensor in (self.pixels, self.labels):
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of every image."""
        return self.pixels.shape[2], self.pixels.shape[3]

    def place(self, device: torch.device) -> "ImageData":
        """The same in the device's memory."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def subset(self, indices: Tensor) -> "ImageData":
        return replace(self, pixels=self.pixels[indices], labels=self.labels[indices])

    def spread(self, count: int) -> "ImageData":
        """`count` images at even distances, so that data sorted by class is covered evenly; all if there are fewer."""
        return self.subset(torch.from_numpy(spread(len(self), min(count, len(self)))))

    def scaled(self, scale: float) -> "ImageData":
        """The same images resized by `scale` with antialiased bilinear interpolation."""
        if scale == 1:
            return self
        height, width = (round(side * scale) for side in self.shape)
        parts = [
            F.interpolate(part.float(), (height, width), mode="bilinear", antialias=True).round().byte()
            for part in self.pixels.split(1000)
        ]
        return replace(self, pixels=torch.cat(parts))


def load_images(
    source: str, split: str, image_shape: tuple[int, int] | None = None, jpeg_scale: JpegScale = "full"
) -> ImageData:
    """Load one split of a name in `DATA_SETS`, a Hub id, or a local folder of parquet files or of a folder per class.

    Images are resized to `image_shape` (height, width) where it is given. Raises DataError when the source, split or
    columns are missing, an image cannot be read, the images differ in size and no shape is given, the shape is too
    small, or there are fewer than two classes.
    """
    if image_shape is not None and min(image_shape) < LEAST_SIDE:
        raise DataError(f"image_shape is {image_shape}; expected {LEAST_SIDE} or more pixels a side")
    opened = open_split(source, split)
    table = opened.table.cast_column(opened.image_column, datasets.Image(decode=False))
    pixels = _pixels(table, opened.image_column, source, image_shape, jpeg_scale)
    return ImageData(pixels, torch.from_numpy(opened.labels), opened.classes)


def held_out_count(data: ImageData, count: int | None) -> int:
    """`count`, or by default as many as `HELD_OUT`, or a tenth of the data where that is less."""
    return min(HELD_OUT, max(1, len(data) // 10)) if count is None else count


def hold_out(data: ImageData, count: int | None, seed: int) -> tuple[ImageData, ImageData]:
    """Split off `held_out_count` images drawn with `seed`: (the rest, the held-out ones), both in a fixed order."""
    count = held_out_count(data, count)
    if not 0 < count < len(data):
        raise DataError(
            f"cannot hold out {count} of {len(data)} training images for validation; "
            "choose another number by --held-out"
        )
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(data)))
    return data.subset(order[count:].sort().values), data.subset(order[:count].sort().values)


def to_floats(pixels: Tensor) -> Tensor:
    """uint8 0..255 -> float32 [0, 1]."""
    return pixels.float() / 255


def _pixels(
    data: datasets.Dataset, column: str, source: str, image_shape: tuple[int, int] | None, jpeg_scale: JpegScale
) -> Tensor:
    pixels: np.ndarray | None = None
    rows = iter(data.select_columns(column))  # reads ahead, where data[index] looks up each row anew
    for index in range(len(data)):
        try:
            image = np.asarray(decode(next(rows)[column], image_shape, jpeg_scale))
        except Exception as error:  # Pillow raises many kinds
            raise DataError(
                f"image {index} of {source!r} cannot be read: {error}. Replace the file or take it out"
            ) from error
        if pixels is None:
            pixels = np.empty((len(data), *image.shape), dtype=np.uint8)
        if image.shape != pixels.shape[1:]:
            raise DataError(
                f"image {index} of {source!r} is {image.shape[1]}x{image.shape[0]} pixels, the first "
                f"{pixels.shape[2]}x{pixels.shape[1]}; expected images of one size, "
                "or the size to make of them by --image-shape"
            )
        pixels[index] = image
    assert pixels is not None, "open_split refuses data without images"
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def load_extra(source: str, like: ImageData, jpeg_scale: JpegScale = "full") -> ImageData:
    """More images of the classes and shape of `like`: an .npz of `image` uint8 (n, h, w, 3) and `label`, or as above.

    Raises DataError when they cannot be read or do not fit.
    """
    if not source.endswith(".npz"):
        extra = load_images(source, "train", like.shape, jpeg_scale)
        if extra.classes != like.classes:
            raise DataError(
                f"extra data {source!r} has classes {extra.classes}; expected those of --data, {like.classes}"
            )
        return extra
    try:
        with np.load(source, allow_pickle=False) as arrays:
            pixels, labels = arrays["image"], arrays["label"]
    except Exception as error:  # numpy, zipfile and zlib raise many kinds
        raise DataError(f"extra data {source!r} cannot be read: {error}. Expected arrays image and label") from error
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (*like.shape, 3) or labels.shape != pixels.shape[:1]:
        raise DataError(
            f"extra data {source!r} has images {pixels.shape} of {pixels.dtype} and labels {labels.shape}; expected "
            f"uint8 (n, {like.shape[0]}, {like.shape[1]}, 3) and labels (n,)"
        )
    if not len(labels):
        raise DataError(f"extra data {source!r} holds no images")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"extra data {source!r} has labels of {labels.dtype}; expected integers")
    if not 0 <= labels.min() <= labels.max() < len(like.classes):
        raise DataError(
            f"extra data {source!r} has labels {labels.min()} to {labels.max()}; expected 0 to {len(like.classes) - 1}"
        )
    return ImageData(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels).long(), like.classes
    )
