"""L-infinity gradient attacks on a model: FGSM, PGD, and margin PGD ("C&W").

Every attack takes images (n, 3, h, w) in [0, 1] and labels (n,), and returns images of the same shape,
detached, within [0, 1] and within `epsilon` of the originals. Perturbations live in pixel coordinates. The caller
puts the model in eval mode.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from training.attacks.ascent import Aim, ascend, uniform_like

Model = Callable[[Tensor], Tensor]
Attack = Callable[[Model, Tensor, Tensor], Tensor]
"""model, images, labels -> adversarial images."""
Loss = Callable[[Tensor, Tensor], Tensor]

CW_CONFIDENCE = 50.0


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy per image, (n,)."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The C&W loss per image, (n,): -max(z_y - max_{j != y} z_j + 50, 0); attacks raise it."""
    true_logit = logits.gather(1, labels[:, None]).squeeze(1)
    return -F.relu(true_logit - best_other(logits, labels) + CW_CONFIDENCE)


def best_other(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest logit of a class other than the label, (n,)."""
    return logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)


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
) -> Tensor:
    """Projected gradient ascent on `loss` within the epsilon ball (Madry et al., ICLR 2018).

    It begins at the images plus `start`, which by default is drawn from U(-epsilon, epsilon), or zero without
    `random_start`.
    """
    if start is None:
        start = uniform_like(images, epsilon) if random_start else torch.zeros(())

    def aim(attacked: Tensor) -> Aim:
        logits = model(attacked)
        return Aim(loss(logits, labels), logits)

    begin = images + start.to(images)
    return ascend(aim, images, labels, start=begin, epsilon=epsilon, step_size=step_size, steps=steps)


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
