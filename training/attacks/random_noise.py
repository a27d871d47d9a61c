"""Random noise: what no attack may be worse than."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from training.attacks.pgd import Model


@torch.no_grad()
def random_noise(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    queries: int,
    random: Sequence[np.random.Generator],
) -> Tensor:
    """The first of `queries` - 1 corners of the epsilon ball, drawn at random, that is misclassified; else the last.

    Images are (n, 3, h, w) in [0, 1], labels (n,); each image has its generator in `random`. One that is broken leaves.
    """
    adversarial = images.clone()
    left = torch.nonzero(model(images).argmax(dim=1) == labels).squeeze(1)
    for _ in range(1, queries):
        if not len(left):
            break
        bits = np.stack([random[index].integers(0, 2, images.shape[1:], dtype=np.int8) for index in left.tolist()])
        signs = 2 * torch.from_numpy(bits).to(images) - 1
        adversarial[left] = (images[left] + epsilon * signs).clamp(0, 1)
        left = left[model(adversarial[left]).argmax(dim=1) == labels[left]]
    return adversarial
