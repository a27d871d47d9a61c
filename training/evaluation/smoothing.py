"""Randomized smoothing: answers with a radius within which no L2 perturbation changes them (Cohen et al., ICML 2019).

The smoothed network answers with the class that the network most often gives under Gaussian noise. This is a
guarantee, up to `alpha`, where every other figure here is an upper bound.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy.stats import beta, norm
from torch import Tensor

ABSTAINED = -1


@dataclass(frozen=True)
class Smoothing:
    """`sigma`: deviation of the noise, in [0, 1] pixels; `guesses` and `samples`: noisy copies that choose and test."""

    sigma: float
    guesses: int = 100
    samples: int = 10_000
    alpha: float = 0.001
    """Probability that a certificate is wrong."""

    @property
    def definition(self) -> str:
        return (
            f"randomized smoothing, sigma {self.sigma:g}: class of {self.guesses} noisy copies, tested on "
            f"{self.samples}, alpha {self.alpha:g}"
        )


class Certificate(NamedTuple):
    """`answer`: a class, or ABSTAINED; `radius`: L2, in [0, 1] pixels, within which the answer is the same."""

    answer: int
    radius: float


def certify(
    model: Callable[[Tensor], Tensor], image: Tensor, smoothing: Smoothing, generator: torch.Generator, batch: int
) -> Certificate:
    """CERTIFY of the paper, on one image (c, h, w) in [0, 1]; `batch` noisy copies at a time.

    R = sigma * Phi^-1(p), where p bounds from below how often the chosen class is the answer (Clopper and Pearson).
    """
    chosen = int(_counts(model, image, smoothing.sigma, smoothing.guesses, generator, batch).argmax())
    hits = int(_counts(model, image, smoothing.sigma, smoothing.samples, generator, batch)[chosen])
    p = float(beta.ppf(smoothing.alpha, hits, smoothing.samples - hits + 1)) if hits else 0.0
    if p <= 0.5:
        return Certificate(ABSTAINED, 0.0)
    return Certificate(chosen, smoothing.sigma * float(norm.ppf(p)))


@torch.no_grad()
def _counts(
    model: Callable[[Tensor], Tensor], image: Tensor, sigma: float, total: int, generator: torch.Generator, batch: int
) -> Tensor:
    """How often each class is the answer among `total` noisy copies, int64 (classes,)."""
    counts = torch.zeros(0, dtype=torch.int64)
    for first in range(0, total, batch):
        count = min(batch, total - first)
        # drawn on the CPU, so that the certificate does not depend on the device; not clipped, as in the paper
        noise = torch.randn((count, *image.shape), generator=generator).to(image.device)
        logits = model(image + sigma * noise)
        found = torch.bincount(logits.argmax(dim=1).cpu(), minlength=logits.shape[1])
        counts = found if not len(counts) else counts + found
    return counts
