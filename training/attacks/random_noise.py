"""Random noise: what no attack may be worse than."""

import torch
from torch import Tensor

from training.attacks.noise import on_device
from training.attacks.pgd import Model


@torch.no_grad()
def random_noise(
    model: Model, images: Tensor, labels: Tensor, *, epsilon: float, queries: int, generator: torch.Generator
) -> Tensor:
    """The first of `queries` - 1 corners of the epsilon ball, drawn at random, that is misclassified; else the last.

    Images are (n, 3, h, w) in [0, 1], labels (n,); `generator` lives on the CPU. An image that is broken leaves.
    """
    noise = on_device(generator, images.device)
    adversarial = images.clone()
    left = torch.nonzero(model(images).argmax(dim=1) == labels).squeeze(1)
    for _ in range(1, queries):
        if not len(left):
            break
        signs = 2 * torch.randint(2, images[left].shape, generator=noise, device=images.device) - 1
        adversarial[left] = (images[left] + epsilon * signs).clamp(0, 1)
        left = left[model(adversarial[left]).argmax(dim=1) == labels[left]]
    return adversarial
