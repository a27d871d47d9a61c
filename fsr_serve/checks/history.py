"""Which of the latest images are variants of one: what an attack by queries cannot help asking (Chen et al., 2020).

An image joins the group of the nearest earlier one, where that is within `reach`. Nothing is kept but thumbnails and
digests, in memory.
"""

import hashlib

import numpy as np

from fsr_serve.preprocessing import Images, to_floats
from fsr_serve.session import Floats

SIDE = 8
"""Of thumbnails: noise within 8/255 moves their pixels by about 1/255, another picture by many."""

REMEMBERED = 4096


class QueryHistory:
    """The latest `size` different images that one worker has seen. Not for two threads at once."""

    def __init__(self, reach: float, size: int = REMEMBERED) -> None:
        """`reach`: root mean square distance of two thumbnails, in [0, 1] pixels, up to which they are alike."""
        self._reach = reach
        self._thumbnails = np.zeros((size, 3 * SIDE * SIDE), np.float32)
        self._lengths = np.zeros(size, np.float32)
        self._groups = np.full(size, -1)
        self._digests = [b""] * size
        self._slots: dict[bytes, int] = {}
        self._seen = 0

    def count(self, images: Images) -> Floats:
        """How many different images are in the group of each of these (n, 3, h, w), itself included: float32 (n,).

        The very same pixels again are no other image.
        """
        found = []
        for image, thumbnail in zip(images, thumbnails(images), strict=True):
            group = self._group(hashlib.blake2b(image.tobytes(), digest_size=16).digest(), thumbnail)
            found.append(np.count_nonzero(self._groups == group))
        return np.array(found, np.float32)

    def _group(self, digest: bytes, thumbnail: Floats) -> int:
        """The group of an image, which is remembered in the place of the oldest."""
        if digest in self._slots:
            return int(self._groups[self._slots[digest]])
        group, held = self._seen, min(self._seen, len(self._groups))
        if held:
            nearest, distance = _nearest(self._thumbnails[:held], self._lengths[:held], thumbnail)
            group = int(self._groups[nearest]) if distance <= self._reach else group
        slot = self._seen % len(self._groups)
        self._slots.pop(self._digests[slot], None)
        self._slots[digest], self._digests[slot] = slot, digest
        self._thumbnails[slot], self._lengths[slot], self._groups[slot] = thumbnail, thumbnail @ thumbnail, group
        self._seen += 1
        return group


def thumbnails(images: Images) -> Floats:
    """Means over 8x8 parts of images (n, 3, h, w): float32 (n, 192), in [0, 1]. Smaller images are repeated."""
    floats = to_floats([images], len(images))
    rows, columns = (np.linspace(0, size, SIDE + 1).astype(int) for size in floats.shape[2:])
    sums = np.add.reduceat(np.add.reduceat(floats, rows[:-1], axis=2), columns[:-1], axis=3)
    counts = np.outer(np.maximum(np.diff(rows), 1), np.maximum(np.diff(columns), 1))
    return np.asarray((sums / counts).reshape(len(images), 3 * SIDE * SIDE), np.float32)


def reach_of(images: Images, rate: float) -> float:
    """The distance within which a share of at most `rate` of these different pictures has another one of them."""
    small = thumbnails(images)
    lengths = np.einsum("nd,nd->n", small, small)
    found = []
    for index, thumbnail in enumerate(small):
        length, lengths[index] = lengths[index], np.inf  # so that none is nearest to itself
        found.append(_nearest(small, lengths, thumbnail)[1])
        lengths[index] = length
    return sorted(found)[int(rate * len(found))]


def _nearest(held: Floats, lengths: Floats, thumbnail: Floats) -> tuple[int, float]:
    """Which of some thumbnails (n, d) with squared lengths (n,) is nearest, and its root mean square distance."""
    # |a - b|^2 less |b|^2, which is the same for all: one product instead of a table of differences
    # and not by BLAS, whose threads would take the other cores from the models for so little
    nearest = int((lengths - 2 * np.einsum("nd,d->n", held, thumbnail)).argmin())
    return nearest, float(np.sqrt(np.mean((held[nearest] - thumbnail) ** 2)))
