"""Square Attack, L-infinity (Andriushchenko et al., ECCV 2020): asks for logits only, never for gradients."""

import torch
from torch import Tensor

from training.attacks.losses import lead
from training.attacks.pgd import Model

FIRST_SHARE = 0.8
"""Of the image that the first squares cover."""
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 queries: after each, squares cover half as much (the authors' schedule, scaled to the budget)."""


@torch.no_grad()
def square(
    model: Model, images: Tensor, labels: Tensor, *, epsilon: float, queries: int, generator: torch.Generator
) -> Tensor:
    """Lower each image's margin by random squares, within `epsilon`, in at most `queries` calls per image.

    Images are (n, 3, h, w) in [0, 1], labels (n,); `generator` lives on the CPU.
    """
    height, width = images.shape[2:]
    lower, upper = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    adversarial = images.clone()
    margin = lead(model(images), labels)
    for query in range(1, queries):
        active = torch.nonzero(margin > 0).squeeze(1)
        if not len(active):
            break
        if query == 1:
            proposal = images[active] + epsilon * _signs((len(active), 3, 1, width), images, generator)
        else:
            covered = FIRST_SHARE * 0.5 ** sum(10_000 * query / queries > halving for halving in HALVINGS)
            side = min(max(round((covered * height * width) ** 0.5), 1), height, width)
            inside = _squares(len(active), height, width, side, generator).to(images.device)
            step = 2 * epsilon * _signs((len(active), 3, 1, 1), images, generator)
            proposal = adversarial[active] + inside * step
        proposal = torch.clamp(proposal, lower[active], upper[active])
        found = lead(model(proposal), labels[active])
        # the stripes replace the image even where they are worse: squares then flip their signs
        better = (found < margin[active]) | (query == 1)
        adversarial[active[better]], margin[active[better]] = proposal[better], found[better]
    return adversarial


def _squares(n: int, height: int, width: int, side: int, generator: torch.Generator) -> Tensor:
    """One square per image at a random place, as booleans (n, 1, h, w)."""
    top = torch.randint(height - side + 1, (n, 1, 1), generator=generator)
    left = torch.randint(width - side + 1, (n, 1, 1), generator=generator)
    rows, columns = torch.arange(height)[None, :, None], torch.arange(width)[None, None, :]
    inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    return inside[:, None]


def _signs(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    return (2 * torch.randint(2, shape, generator=generator) - 1).to(like)
