"""Square Attack, L-infinity (Andriushchenko et al., ECCV 2020), on anything that answers. Free of torch.

A checkpoint and the file that is deployed are shown the same squares, so that only their answers differ.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

FIRST_SHARE = 0.8
"""Of the image that the first squares cover."""
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 queries: after each, squares cover half as much (the authors' schedule, scaled to the budget)."""


def search_by_squares(
    lead_of: Callable[[Floats, Labels], Floats],
    images: Floats,
    labels: Labels,
    *,
    epsilon: float,
    queries: int,
    random: Sequence[np.random.Generator],
) -> Floats:
    """Lower each image's lead by random squares, within `epsilon`, in at most `queries` calls per image.

    `lead_of` maps some of the images float32 (n, c, h, w) in [0, 1] and their labels (n,) to the logit of the label
    less the largest other, (n,). Each image has its generator: what it is shown does not depend on those beside it.
    """
    _, channels, height, width = images.shape
    stripes = np.stack([_signs(one, (channels, 1, width)) for one in random])
    signs = np.stack([_signs(one, (queries, channels, 1, 1)) for one in random])
    places = np.stack([one.random((queries, 2), dtype=np.float32) for one in random])
    lower, upper = np.maximum(images - epsilon, 0), np.minimum(images + epsilon, 1)
    adversarial = images.copy()
    clean_leads = lead_of(images, labels)
    leads = clean_leads.copy()
    active = np.flatnonzero(leads >= 0)  # at a tie the order of the classes decides
    for query in range(1, queries):
        if not len(active):
            break
        if query == 1:
            moved = images[active] + epsilon * stripes[active]
        else:
            side = min(max(round((_share(query / queries) * height * width) ** 0.5), 1), height, width)
            inside = _squares(places[active, query], height, width, side)
            moved = adversarial[active] + inside * (2 * epsilon * signs[active, query])
        proposal = np.clip(moved, lower[active], upper[active])
        found = lead_of(proposal, labels[active])
        # the stripes replace the image even where they are worse: squares then flip their signs
        better = (found < leads[active]) | (query == 1)
        adversarial[active[better]], leads[active[better]] = proposal[better], found[better]
        active = active[leads[active] >= 0]
    unbroken = (clean_leads == 0) & (leads >= 0)  # their answers may be wrong as they are
    adversarial[unbroken] = images[unbroken]
    return adversarial


def _share(progress: float) -> float:
    return FIRST_SHARE * 0.5 ** sum(progress * 10_000 > halving for halving in HALVINGS)


def _squares(places: Floats, height: int, width: int, side: int) -> npt.NDArray[np.bool_]:
    """One square per image, booleans (n, 1, h, w), at `places` (n, 2) in [0, 1) of where it can be."""
    top, left = (places * (height - side + 1, width - side + 1)).astype(np.int64).T[..., None]
    rows, columns = np.arange(height), np.arange(width)
    rows_inside = (rows >= top) & (rows < top + side)
    columns_inside = (columns >= left) & (columns < left + side)
    return (rows_inside[:, :, None] & columns_inside[:, None, :])[:, None]


def _signs(random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return (2 * random.integers(0, 2, shape) - 1).astype(np.float32)
