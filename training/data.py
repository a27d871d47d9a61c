"""Image data sets as uint8 tensors in memory: a Hugging Face id, or a local folder of parquet or image files."""

import hashlib
from dataclasses import dataclass, replace

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.source import DataError, open_split, spread


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


def load_images(source: str, split: str) -> ImageData:
    """Load one split of a Hub id, or of a local folder of parquet files or of one folder per class.

    Raises DataError when the source, split or columns are missing, an image cannot be read, the images differ
    in size, or there are fewer than two classes.
    """
    opened = open_split(source, split)
    table = opened.table.cast_column(opened.image_column, datasets.Image(mode="RGB"))
    pixels = _pixels(table, opened.image_column, source)
    return ImageData(pixels, torch.from_numpy(opened.labels), opened.classes)


def hold_out(data: ImageData, count: int, seed: int) -> tuple[ImageData, ImageData]:
    """Split off `count` images drawn with `seed`: (the rest, the held-out ones), both in a fixed order."""
    if not 0 < count < len(data):
        raise DataError(
            f"cannot hold out {count} of {len(data)} training images for validation; "
            "choose another number by --held-out"
        )
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(data)))
    return data.subset(order[count:].sort().values), data.subset(order[:count].sort().values)


def augment(images: Tensor, *, padding: int) -> Tensor:
    """Random crop of the zero-padded images and random horizontal flip, one draw per image: (n, 3, h, w)."""
    count, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    rows = torch.randint(2 * padding + 1, (count, 1)) + torch.arange(height)
    columns = torch.randint(2 * padding + 1, (count, 1)) + torch.arange(width)
    flipped = torch.rand(count, 1) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns)
    index = torch.arange(count)[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2)


def to_floats(pixels: Tensor) -> Tensor:
    """uint8 0..255 -> float32 [0, 1]."""
    return pixels.float() / 255


def _pixels(data: datasets.Dataset, column: str, source: str) -> Tensor:
    pixels: np.ndarray | None = None
    rows = iter(data.select_columns(column))  # reads ahead, where data[index] looks up each row anew
    for index in range(len(data)):
        try:
            image = np.asarray(next(rows)[column])
        except Exception as error:  # Pillow raises many kinds
            raise DataError(f"image {index} of {source!r} cannot be read: {error}") from error
        if pixels is None:
            pixels = np.empty((len(data), *image.shape), dtype=np.uint8)
        if image.shape != pixels.shape[1:]:
            raise DataError(
                f"image {index} of {source!r} is {image.shape[1]}x{image.shape[0]} pixels, the first "
                f"{pixels.shape[2]}x{pixels.shape[1]}; expected images of one size"
            )
        pixels[index] = image
    assert pixels is not None, "open_split refuses data without images"
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
