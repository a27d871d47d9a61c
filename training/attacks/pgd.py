"""L-infinity gradient attacks on a model: FGSM, PGD, and margin PGD ("C&W").

Every attack takes images (n, 3, h, w) in [0, 1] and labels (n,), and returns images of the same shape,
detached, within [0, 1] and within `epsilon` of the originals. Perturbations live in pixel coordinates. The caller
puts the model in eval mode.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from training.attacks.ascent import Aim, ascend, uniform_like
from training.attacks.losses import Loss, cross_entropy, margin

Model = Callable[[Tensor], Tensor]
Attack = Callable[[Model, Tensor, Tensor], Tensor]
"""model, images, labels -> adversarial images."""


def pgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    step_size: float,
    steps: int,
    random_start: bool = True,
    start: Tensor | None = None,
    loss: Loss = cross_entropy,
    along: Callable[[Tensor], Tensor] = torch.sign,
) -> Tensor:
    """Projected gradient ascent on `loss` within the epsilon ball (Madry et al., ICLR 2018).

    It begins at the images plus `start`, which by default is drawn from U(-epsilon, epsilon), or zero without
    `random_start`, and steps `along` the gradient.
    """
    if start is None:
        start = uniform_like(images, epsilon) if random_start else torch.zeros(())

    def aim(attacked: Tensor) -> Aim:
        logits = model(attacked)
        return Aim(loss(logits, labels), logits)

    begin = images + start.to(images)
    return ascend(aim, images, labels, start=begin, epsilon=epsilon, step_size=step_size, steps=steps, along=along)


def fgsm(model: Model, images: Tensor, labels: Tensor, *, epsilon: float) -> Tensor:
    """One step of epsilon from the image itself (Goodfellow et al., ICLR 2015)."""
    return pgd(model, images, labels, epsilon=epsilon, step_size=epsilon, steps=1, random_start=False)


def cw(
    model: Model, images: Tensor, labels: Tensor, *, epsilon: float, steps: int = 30, random_start: bool = True
) -> Tensor:
    """PGD on the margin loss with confidence 50 and steps of epsilon / 10: the paper's "C&W"."""
    return pgd(
        model,
        images,
        labels,
        epsilon=epsilon,
        step_size=epsilon / 10,
        steps=steps,
        random_start=random_start,
        loss=margin,
    )
