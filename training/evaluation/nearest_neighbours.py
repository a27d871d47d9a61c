"""Weighted k-nearest-neighbour classification of features (arXiv 2303.13846, section 4.3, and Table 5b).

A feature is classified by the neighbours v_i with the highest cosine: each votes for its class with the weight
exp(cos(f, v_i) / gamma).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

GAMMA = 0.07
"""That of Wu et al. (CVPR 2018, arXiv 1805.01978), who defined the vote; the paper does not state its own."""

CHUNK_COSINES = 2**24
"""Held in memory at once: 64 MiB."""


def knn_answers(
    queries: Tensor,
    neighbours: Tensor,
    labels: Tensor,
    *,
    ks: Sequence[int],
    classes: int,
    gamma: float = GAMMA,
) -> dict[int, Tensor]:
    """For each k the class int64 (n,) that the k nearest of `neighbours` (m, c) with `labels` (m,) give each query.

    Queries are (n, c). Of classes with equal votes the first answers. Raises ValueError for a k beyond 1 to m.
    """
    most = max(ks)
    if min(ks) < 1 or most > len(neighbours):
        raise ValueError(f"k is {', '.join(map(str, ks))}; expected 1 to {len(neighbours)}, the number of neighbours")
    neighbours = F.normalize(neighbours, dim=1)
    answers: dict[int, list[Tensor]] = {k: [] for k in ks}
    for chunk in queries.split(max(1, CHUNK_COSINES // len(neighbours))):
        cosines, indices = (F.normalize(chunk, dim=1) @ neighbours.T).topk(most, dim=1)
        for k in ks:
            answers[k].append(votes(cosines[:, :k], labels[indices[:, :k]], classes, gamma).argmax(dim=1))
    return {k: torch.cat(parts) for k, parts in answers.items()}


def votes(cosines: Tensor, labels: Tensor, classes: int, gamma: float = GAMMA) -> Tensor:
    """Scores s_c (n, classes): the weights of the neighbours, given by cosines and labels (n, k), summed by class."""
    return cosines.new_zeros(len(cosines), classes).scatter_add_(1, labels, torch.exp(cosines / gamma))
