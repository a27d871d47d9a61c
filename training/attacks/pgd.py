"""L-infinity gradient attacks: FGSM, PGD, margin PGD ("C&W"), and the noisy FGSM used for training.

Every attack takes images (n, 3, h, w) in [0, 1] and labels (n,), and returns images of the same shape,
detached, within [0, 1] and (but for `n_fgsm`) within `epsilon` of the originals. Perturbations live in
pixel coordinates. The caller puts the model in eval mode.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

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


def gradient_sign(model: Model, images: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """Sign of the gradient of the summed loss with respect to the images."""
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(model(images), labels).sum(), images)
    return gradient.sign()


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
    lower, upper = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    if start is None:
        start = torch.empty_like(images).uniform_(-epsilon, epsilon) if random_start else torch.zeros(())
    adversarial = torch.clamp(images + start.to(images), lower, upper)
    for _ in range(steps):
        direction = gradient_sign(model, adversarial, labels, loss)
        adversarial = torch.clamp(adversarial + step_size * direction, lower, upper)
    return adversarial.detach()


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


def n_fgsm(model: Model, images: Tensor, labels: Tensor, *, epsilon: float) -> Tensor:
    """One step of epsilon from U(-2 epsilon, 2 epsilon) noise, not projected (de Jorge et al., NeurIPS 2022).

    For training only: the result lies in [0, 1], but up to 3 epsilon from the image.
    """
    noisy = (images + torch.empty_like(images).uniform_(-2 * epsilon, 2 * epsilon)).clamp(0, 1)
    direction = gradient_sign(model, noisy, labels, cross_entropy)
    return (noisy + epsilon * direction).clamp(0, 1)
