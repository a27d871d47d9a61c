"""How many of the latest images are variants of one: what an attack by queries cannot help asking (Chen et al., 2020).

Two images are alike when their thumbnails are within `reach`. Nothing is kept but thumbnails and digests, in memory.
"""

import hashlib

import numpy as np

from fsr_serve.preprocessing import Images, Pixels, to_floats
from fsr_serve.session import Floats

SIDE = 8
"""Of thumbnails: noise within 8/255 moves their pixels by about 1/255, another picture by many."""

REMEMBERED = 4096


class QueryHistory:
    """The latest `size` different images that one worker has seen. Not for two threads at once."""

    def __init__(self, reach: float, size: int) -> None:
        """`reach`: root mean square distance of two thumbnails, in [0, 1] pixels, up to which they are alike."""
        self._reach = reach
        self._thumbnails = np.zeros((size, 3 * SIDE * SIDE), np.float32)
        self._lengths = np.zeros(size, np.float32)
        self._digests = [b""] * size
        self._known: set[bytes] = set()
        self._seen = 0

    def count(self, images: Images) -> Floats:
        """To how many remembered images each of these (n, 3, h, w) is alike, itself included: float32 (n,).

        The very same pixels again are no other image.
        """
        found = []
        for image, thumbnail in zip(images, thumbnails(images), strict=True):
            self._remember(_digest(image), thumbnail)
            held = min(self._seen, len(self._lengths))
            distances = _distances(self._thumbnails[:held], self._lengths[:held], thumbnail)
            found.append(np.count_nonzero(distances <= self._reach))
        return np.array(found, np.float32)

    def _remember(self, digest: bytes, thumbnail: Floats) -> None:
        """In the place of the oldest, unless it is there already."""
        if digest in self._known:
            return
        slot = self._seen % len(self._lengths)
        self._known.discard(self._digests[slot])
        self._known.add(digest)
        self._thumbnails[slot], self._lengths[slot] = thumbnail, thumbnail @ thumbnail
        self._digests[slot] = digest
        self._seen += 1


def thumbnails(images: Images) -> Floats:
    """Means over 8x8 parts of images (n, 3, h, w): float32 (n, 192), in [0, 1]. Smaller images are repeated."""
    floats = to_floats([images], len(images))
    rows, columns = (np.linspace(0, size, SIDE + 1).astype(int) for size in floats.shape[2:])
    sums = np.add.reduceat(np.add.reduceat(floats, rows[:-1], axis=2), columns[:-1], axis=3)
    counts = np.outer(np.maximum(np.diff(rows), 1), np.maximum(np.diff(columns), 1))
    return np.asarray((sums / counts).reshape(len(images), 3 * SIDE * SIDE), np.float32)


def reach_of(images: Images, rate: float) -> float:
    """The distance at which, of n such pictures, no more than `rate` * (n + 1) - 1 are alike to another of them.

    So the p-value of an image that is alike to one of n others is at most `rate`, or as small as can be. The very same
    pixels again are no other picture. 0 where more have the thumbnail of another.
    """
    first = {_digest(image): index for index, image in reversed(list(enumerate(images)))}
    small = thumbnails(images[sorted(first.values())])
    lengths = np.einsum("nd,nd->n", small, small)
    nearest = []
    for index, thumbnail in enumerate(small):
        distances = _distances(small, lengths, thumbnail)
        distances[index] = np.inf  # itself
        nearest.append(distances.min())
    nearest.sort()
    first_too_many = nearest[max(int(rate * (len(nearest) + 1)) - 1, 0)]
    last_allowed = max((distance for distance in nearest if distance < first_too_many), default=0.0)
    return float(first_too_many + last_allowed) / 2  # between the two, so that rounding does not matter


def _digest(image: Pixels) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def _distances(held: Floats, lengths: Floats, thumbnail: Floats) -> Floats:
    """Root mean square distances (n,) of thumbnails (n, d), with their squared lengths (n,), to one."""
    # one product instead of a table of differences
    # and not by BLAS, whose threads would take the other cores from the models for so little
    squares = lengths + thumbnail @ thumbnail - 2 * np.einsum("nd,d->n", held, thumbnail)
    return np.asarray(np.sqrt(np.maximum(squares, 0) / len(thumbnail)))
