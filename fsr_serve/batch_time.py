"""How long batches take, learnt from those that ran."""

import math

DECAY = 0.9
"""What one more batch leaves of the weight of earlier ones."""


class BatchTime:
    """Seconds of a batch as `fixed + each * images`, by least squares over the latest batches."""

    def __init__(self) -> None:
        self._weight = self._images = self._squares = self._seconds = self._products = 0.0
        self._line = 0.0, 0.0  # fixed, each

    def observe(self, images: int, seconds: float) -> None:
        """A batch of `images` took `seconds`."""
        self._weight = DECAY * self._weight + 1
        self._images = DECAY * self._images + images
        self._squares = DECAY * self._squares + images * images
        self._seconds = DECAY * self._seconds + seconds
        self._products = DECAY * self._products + images * seconds
        self._line = self._fit()

    def predict(self, images: int, batch_images: int) -> float:
        """Seconds for `images` in batches of at most `batch_images`, one after the other; 0 before the first batch."""
        fixed, each = self._line
        return math.ceil(images / batch_images) * fixed + images * each

    def _fit(self) -> tuple[float, float]:
        through_origin = self._products / self._squares
        spread = self._weight * self._squares - self._images**2
        if spread < 1e-9 * self._weight * self._squares:  # all of one size
            return 0.0, through_origin
        each = (self._weight * self._products - self._images * self._seconds) / spread
        fixed = (self._seconds - each * self._images) / self._weight
        if each < 0:
            return self._seconds / self._weight, 0.0
        return (fixed, each) if fixed >= 0 else (0.0, through_origin)
