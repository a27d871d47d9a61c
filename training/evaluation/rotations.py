"""Rotations with translations, drawn or tried one after another (Engstrom et al., ICML 2019, arXiv 1712.02779).

At most 30 degrees and 3 of 32 pixels in each direction, bilinear, with black where the image ends, as there.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from PIL import Image

from training.evaluation.corruptions import Pixels

MOST_DEGREES = 30.0
MOST_SHIFT = 3 / 32
"""As a share of the side."""
GRID_ANGLES, GRID_SHIFTS = 31, 5
"""Angles, and shifts in each direction, of the grid search."""


def rotated(pixels: Pixels, degrees: float, right: float, down: float) -> Pixels:
    """Pixels uint8 (h, w, 3) turned about the centre, counterclockwise, then shifted by shares of the sides."""
    image = Image.fromarray(pixels)
    shift = (right * image.width, down * image.height)
    return np.asarray(image.rotate(degrees, Image.Resampling.BILINEAR, translate=shift))  # type: ignore[arg-type]


def randomly_rotated(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """By an angle and shifts that are drawn evenly."""
    degrees = random.uniform(-MOST_DEGREES, MOST_DEGREES)
    right, down = random.uniform(-MOST_SHIFT, MOST_SHIFT, 2)
    return rotated(pixels, degrees, right, down)


@dataclass(frozen=True)
class Rotation:
    """One place of the grid; called as any other change of an image."""

    degrees: float
    right: float
    down: float

    def __call__(self, pixels: Pixels, random: np.random.Generator) -> Pixels:
        return rotated(pixels, self.degrees, self.right, self.down)


def grid() -> tuple[Rotation, ...]:
    """All 31 x 5 x 5 places, the farthest turned ones first: they break most, and what is broken is not tried on."""
    angles = np.linspace(-MOST_DEGREES, MOST_DEGREES, GRID_ANGLES)
    shifts = np.linspace(-MOST_SHIFT, MOST_SHIFT, GRID_SHIFTS)
    places = (Rotation(*map(float, place)) for place in product(angles, shifts, shifts))
    return tuple(sorted(places, key=lambda place: -abs(place.degrees)))
