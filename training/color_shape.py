"""ColorShape of IDBH: one of eight operations per image (Li and Spratling, ICLR 2023; strengths of the "weak" policy).

Colours as in Pillow's ImageEnhance and ImageOps; images (n, 3, h, w) in [0, 1].
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def color_shape(images: Tensor) -> Tensor:
    """Each image through one operation of `OPERATIONS`, all equally likely.

    All images go through all of them: picking out those of an operation would wait for a GPU to count them.
    """
    chosen = torch.randint(len(OPERATIONS), (len(images),), device=images.device)
    changed = images
    for index, operation in enumerate(OPERATIONS):
        changed = torch.where((chosen == index)[:, None, None, None], operation(images), changed)
    return changed


def saturation(images: Tensor) -> Tensor:
    return _blend(_grey(images), images, 0.1, 1.9)


def brightness(images: Tensor) -> Tensor:
    return _blend(torch.zeros_like(images), images, 0.5, 1.9)


def contrast(images: Tensor) -> Tensor:
    return _blend(_grey(images).mean(dim=(1, 2, 3), keepdim=True), images, 0.5, 1.9)


def sharpness(images: Tensor) -> Tensor:
    kernel = images.new_ones(3, 1, 3, 3) / 13
    kernel[:, :, 1, 1] = 5 / 13
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(images, kernel, groups=3)
    return _blend(smooth, images, 0.1, 1.9)


def autocontrast(images: Tensor) -> Tensor:
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1 / 255), images)


def equalize(images: Tensor) -> Tensor:
    """Flatten the histogram of each channel, as Pillow does."""
    levels = (images * 255).round().long().flatten(2)  # (n, 3, h w)
    ones = torch.ones_like(levels)
    histogram = levels.new_zeros(*levels.shape[:2], 256).scatter_add_(2, levels, ones)
    last = histogram.gather(2, levels.amax(dim=2, keepdim=True))
    step = (levels.shape[2] - last) // 255
    table = (histogram.cumsum(dim=2) - histogram + step // 2) // step.clamp(min=1)
    equalized = table.clamp(0, 255).gather(2, levels)
    return torch.where(step > 0, equalized, levels).view_as(images) / 255


def shear(images: Tensor) -> Tensor:
    """By 5 to 15 % along either axis, either way."""
    strength = _signed(images, 0.05, 0.15)
    is_row = torch.rand_like(strength) < 0.5
    zero, one = torch.zeros_like(strength), torch.ones_like(strength)
    return _affine(images, one, torch.where(is_row, strength, zero), torch.where(is_row, zero, strength), one)


def rotate(images: Tensor) -> Tensor:
    """By 1 to 10 degrees, either way."""
    angle = _signed(images, math.radians(1), math.radians(10))
    return _affine(images, angle.cos(), -angle.sin(), angle.sin(), angle.cos())


OPERATIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    saturation,
    brightness,
    contrast,
    sharpness,
    autocontrast,
    equalize,
    shear,
    rotate,
)


def _blend(other: Tensor, images: Tensor, low: float, high: float) -> Tensor:
    factor = torch.empty(len(images), 1, 1, 1, device=images.device).uniform_(low, high)
    return (other + factor * (images - other)).clamp(0, 1)


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.split(1, dim=1)
    return (0.299 * red + 0.587 * green + 0.114 * blue).expand_as(images)


def _signed(images: Tensor, low: float, high: float) -> Tensor:
    size = torch.empty(len(images), device=images.device).uniform_(low, high)
    return torch.where(torch.rand_like(size) < 0.5, size, -size)


def _affine(images: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Each output pixel at (x, y) is taken from (a x + b y, c x + d y), coordinates from the centre."""
    zero = torch.zeros_like(a)
    matrices = torch.stack([torch.stack([a, b, zero], dim=1), torch.stack([c, d, zero], dim=1)], dim=1)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="nearest", align_corners=False)
