"""How an attacker who knows the history asks: each query as a view of the image that is like none asked before.

Query blinding (Chen et al., 2020): the answer to the view stands for the answer to the image. No torch.
"""

import numpy as np

from fsr_serve.checks.history import SIDE, thumbnails
from fsr_serve.session import Floats

SHIFT = 1 / 8
"""Of the height and width, at most; what comes in at the edge is reflected."""
GAIN, OFFSET = 0.3, 0.15
"""Of each channel's contrast around 0.5 and of its brightness, at most."""
DRAWS = 20
"""Views to choose from, until one is far enough from all that were asked."""


class Disguise:
    """Views of one image of which no two are within `reach`, as far as such views are found."""

    def __init__(self, reach: float, random: np.random.Generator) -> None:
        self._reach = reach
        self._random = random
        self._asked = np.empty((0, 3 * SIDE * SIDE), np.float32)

    def view(self, image: Floats) -> Floats:
        """A view of the image (1, 3, h, w) that counts as asked: the first far enough, or the farthest of `DRAWS`."""
        farthest, most = image, -1.0
        for _ in range(DRAWS):
            drawn = self._drawn(image)
            if (distance := self._distance(drawn)) > most:
                farthest, most = drawn, distance
            if distance > self._reach:
                break
        self._asked = np.concatenate([self._asked, thumbnails(farthest)])
        return farthest

    def _distance(self, view: Floats) -> float:
        """To the nearest that was asked."""
        return float(np.sqrt(np.square(self._asked - thumbnails(view)).mean(axis=1).min(initial=np.inf)))

    def _drawn(self, image: Floats) -> Floats:
        """The image mirrored or not, shifted, and each channel in another contrast and brightness."""
        random = self._random
        height, width = image.shape[2:]
        rows, columns = int(SHIFT * height), int(SHIFT * width)
        padded = np.pad(image, ((0, 0), (0, 0), (rows, rows), (columns, columns)), mode="reflect")
        top, left = random.integers(2 * rows + 1), random.integers(2 * columns + 1)
        shifted = padded[:, :, top : top + height, left : left + width]
        mirrored = shifted[..., :: random.choice((-1, 1))]
        gain, offset = random.uniform(1 - GAIN, 1 + GAIN, (3, 1, 1)), random.uniform(-OFFSET, OFFSET, (3, 1, 1))
        return np.clip((mirrored - 0.5) * gain + 0.5 + offset, 0, 1).astype(np.float32)
