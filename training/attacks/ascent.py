"""The one loop of every gradient attack: ascent on any loss, from any start.

`pgd`, N-FGSM and friendly adversarial training differ only in start, steps and patience.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Aim(NamedTuple):
    """What the ascent sees at some images: the loss it raises, (n,), and the logits (n, classes)."""

    loss: Tensor
    logits: Tensor


def ascend(
    aim: Callable[[Tensor], Aim],
    images: Tensor,
    labels: Tensor,
    *,
    start: Tensor,
    epsilon: float,
    step_size: float,
    steps: int,
    patience: int | None = None,
    along: Callable[[Tensor], Tensor] = torch.sign,
) -> Tensor:
    """Projected gradient ascent from `start` within epsilon of images (n, 3, h, w) in [0, 1]; detached.

    A step goes `step_size` along what `along` makes of the gradient. With `patience` an image takes at most so many
    steps more once it is misclassified (friendly adversarial training, Zhang et al., ICML 2020, arXiv 2002.11242,
    algorithm 1). The caller puts the model in eval mode.
    """
    lower, upper = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    adversarial = torch.clamp(start, lower, upper)
    left = None if patience is None else torch.full_like(labels, patience)
    for _ in range(steps):
        adversarial = adversarial.detach().requires_grad_()
        seen = aim(adversarial)
        (gradient,) = torch.autograd.grad(seen.loss.sum(), adversarial)
        step = step_size * along(gradient)
        if left is not None:
            is_wrong = seen.logits.argmax(dim=1) != labels
            step = torch.where((is_wrong & (left == 0))[:, None, None, None], 0.0, step)
            left = torch.where(is_wrong, (left - 1).clamp(min=0), left)
        adversarial = torch.clamp(adversarial + step, lower, upper)
    return adversarial.detach()


def n_fgsm(aim: Callable[[Tensor], Aim], images: Tensor, labels: Tensor, *, epsilon: float) -> Tensor:
    """One step of epsilon from U(-2 epsilon, 2 epsilon) noise, not projected (de Jorge et al., NeurIPS 2022).

    For training only: the result lies in [0, 1], but up to 3 epsilon from the image.
    """
    noisy = (images + uniform_like(images, 2 * epsilon)).clamp(0, 1)
    return ascend(aim, noisy, labels, start=noisy, epsilon=epsilon, step_size=epsilon, steps=1)


def uniform_like(images: Tensor, bound: float) -> Tensor:
    """Noise from U(-bound, bound) of the images' shape."""
    return torch.empty_like(images).uniform_(-bound, bound)
