"""Square Attack, L-infinity (Andriushchenko et al., ECCV 2020): needs answers only, no gradients."""

from collections.abc import Callable

import numpy as np

from fsr_serve.checks.probe import Labels
from fsr_serve.ranking import lead
from fsr_serve.session import Floats

FIRST_SHARE = 0.8
"""Of the image that the first squares cover."""
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 queries: after each, squares cover half as much (the authors' schedule, scaled to the budget)."""


def square(
    logits_of: Callable[[Floats], Floats],
    images: Floats,
    labels: Labels,
    *,
    epsilon: float,
    queries: int,
    random: np.random.Generator,
) -> Floats:
    """Lower each image's margin by random squares, within `epsilon`, in at most `queries` calls per image.

    `logits_of` maps images float32 (n, 3, h, w) in [0, 1] to logits (n, classes).
    """
    _, channels, height, width = images.shape
    lower, upper = np.maximum(images - epsilon, 0), np.minimum(images + epsilon, 1)
    adversarial = images.copy()
    margin = lead(logits_of(images), labels)
    active = np.flatnonzero(margin > 0)
    stripes = _signs(random, (len(active), channels, 1, width))
    for query in range(1, queries):
        if not len(active):
            break
        low, high = lower[active], upper[active]
        if query == 1:
            proposal = np.clip(images[active] + epsilon * stripes, low, high)
        else:
            side = max(round((_share(query / queries) * height * width) ** 0.5), 1)
            inside = _squares(random, len(active), height, width, min(side, height, width))
            moved = adversarial[active] + 2 * epsilon * _signs(random, (len(active), channels, 1, 1))
            proposal = np.where(inside, np.clip(moved, low, high), adversarial[active])
        found = lead(logits_of(proposal), labels[active])
        # the first proposal replaces the image even where it is worse: squares then flip its signs
        better = (found < margin[active]) | (query == 1)
        adversarial[active[better]] = proposal[better]
        margin[active[better]] = found[better]
        active = active[margin[active] > 0]
    return adversarial


def _share(progress: float) -> float:
    return FIRST_SHARE * 0.5 ** sum(progress * 10_000 > halving for halving in HALVINGS)


def _squares(random: np.random.Generator, n: int, height: int, width: int, side: int) -> np.ndarray:
    """One square per image at a random place, as booleans (n, 1, h, w)."""
    top = random.integers(0, height - side + 1, (n, 1))
    left = random.integers(0, width - side + 1, (n, 1))
    rows = (np.arange(height) >= top) & (np.arange(height) < top + side)
    columns = (np.arange(width) >= left) & (np.arange(width) < left + side)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _signs(random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return (2 * random.integers(0, 2, shape) - 1).astype(np.float32)
