"""Augmentation of whole batches, wherever they lie; one draw per image unless stated. Zero is what fills gaps."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from training.color_shape import color_shape
from training.data import to_floats
from training.objectives import Target
from training.recipes import Recipe

CROP_SHIFT = 11 / 32
"""Most rows and columns together that CropShift of IDBH cuts off, as a share of the side."""
ERASED = 0.5
"""Share of the images from which IDBH-weak erases a rectangle."""


def augment(pixels: Tensor, labels: Tensor, classes: int, recipe: Recipe, scale: float) -> tuple[Tensor, Target]:
    """uint8 (n, 3, h, w) -> float images in [0, 1] and what they show, by the recipe's augmentation and smoothing.

    `scale` is that of the images against full resolution.
    """
    images = to_floats(pixels)
    mixed: Tensor | None = None
    if recipe.augmentation in ("crop_flip", "cutmix"):
        images = crop_flip(images, padding=round(recipe.padding * scale))
    if recipe.augmentation == "idbh_weak":
        images = idbh_weak(images)
    if recipe.augmentation == "cutmix":
        images, labels, mixed = cutmix(images, labels, classes)
    if recipe.label_smoothing > 0:
        mixed = F.one_hot(labels, classes).float() if mixed is None else mixed
        mixed = (1 - recipe.label_smoothing) * mixed + recipe.label_smoothing / classes
    return images, Target(labels, labels if mixed is None else mixed)


def crop_flip(images: Tensor, *, padding: int) -> Tensor:
    """Random crop of the padded images and random horizontal flip: (n, 3, h, w)."""
    count, _, height, width = images.shape
    device = images.device
    padded = F.pad(images, (padding,) * 4)
    rows = torch.randint(2 * padding + 1, (count, 1), device=device) + torch.arange(height, device=device)
    columns = torch.randint(2 * padding + 1, (count, 1), device=device) + torch.arange(width, device=device)
    return _pick(padded, rows, _flip(columns))


def idbh_weak(images: Tensor) -> Tensor:
    """Flip, CropShift, one ColorShape operation, erasing of half of the images (Li and Spratling, ICLR 2023, IDBH)."""
    return erase(color_shape(crop_shift(_pick_flipped(images))), ERASED)


def crop_shift(images: Tensor) -> Tensor:
    """Cut a random number of rows and columns off, and put the rest at a random place."""
    count, _, height, width = images.shape
    device = images.device
    cut = torch.randint(round(CROP_SHIFT * min(height, width)) + 1, (count, 1), device=device)
    cut_rows = (torch.rand(count, 1, device=device) * (cut + 1)).long()
    rows, is_row = _shifted(height, cut_rows)
    columns, is_column = _shifted(width, cut - cut_rows)
    return _pick(images, rows, columns) * (is_row[:, None, :, None] & is_column[:, None, None, :])


def erase(images: Tensor, share: float) -> Tensor:
    """Blacken one rectangle in a `share` of the images (Zhong et al., AAAI 2020; 2 to 33 % of the area)."""
    count, _, height, width = images.shape
    area = torch.empty(count, device=images.device).uniform_(0.02, 0.33) * height * width
    aspect = torch.empty(count, device=images.device).uniform_(math.log(0.3), math.log(3.3)).exp()
    inside = _rectangle(images, (area * aspect).sqrt(), (area / aspect).sqrt())
    inside &= (torch.rand(count, device=images.device) < share)[:, None, None]
    return images.masked_fill(inside[:, None], 0.0)


def cutmix(images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Put a rectangle of another image of the batch into each (Yun et al., ICCV 2019); its area is uniform.

    Returns the images, the class that shows most, (n,), and the shares of the classes, (n, classes).
    """
    count, _, height, width = images.shape
    side = torch.rand(count, device=images.device).sqrt()
    inside = _rectangle(images, side * height, side * width)
    other = torch.randperm(count, device=images.device)
    mixed = torch.where(inside[:, None], images[other], images)
    share = inside.float().mean(dim=(1, 2))[:, None]
    shares = (1 - share) * F.one_hot(labels, classes) + share * F.one_hot(labels[other], classes)
    return mixed, torch.where(share[:, 0] > 0.5, labels[other], labels), shares


def _pick(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """images[i, :, rows[i], columns[i]] for every image i."""
    index = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _pick_flipped(images: Tensor) -> Tensor:
    count, _, height, width = images.shape
    rows, columns = (torch.arange(side, device=images.device).expand(count, side) for side in (height, width))
    return _pick(images, rows, _flip(columns))


def _flip(columns: Tensor) -> Tensor:
    return torch.where(torch.rand(len(columns), 1, device=columns.device) < 0.5, columns.flip(1), columns)


def _shifted(side: int, cut: Tensor) -> tuple[Tensor, Tensor]:
    """Where each of `side` rows comes from after `cut` (n, 1) were cut off, and whether it comes from anywhere."""
    source, place = ((torch.rand_like(cut, dtype=torch.float) * (cut + 1)).long() for _ in range(2))
    position = torch.arange(side, device=cut.device) - place
    return (position + source).clamp(0, side - 1), (position >= 0) & (position < side - cut)


def _rectangle(images: Tensor, heights: Tensor, widths: Tensor) -> Tensor:
    """Whether a pixel is in its image's rectangle, somewhere in the image: bool (n, h, w)."""

    def within(side: int, lengths: Tensor) -> Tensor:
        lengths = lengths.round().clamp(max=side)
        start = (torch.rand_like(lengths) * (side - lengths + 1)).floor()[:, None]
        position = torch.arange(side, device=lengths.device)
        return (position >= start) & (position < start + lengths[:, None])

    return within(images.shape[2], heights)[:, :, None] & within(images.shape[3], widths)[:, None, :]
