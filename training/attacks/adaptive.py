"""PGD that knows FSR, or its rivals: other gradients of its masks, all of its heads, its features.

All begin at the images plus `start`, (n, 3, h, w), leave an image as soon as it is misclassified, as what they climb
may go on without that, and raise ValueError for a model without FSR; `all_heads` takes CAS and CIFS too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from training.attacks.ascent import Aim, ascend
from training.attacks.losses import Loss, cross_entropy
from training.attacks.mask_gradients import MaskGradient, fsr_of
from training.attacks.pgd import Model
from training.models import FSRNet
from training.models.separated import recorded


def mask_pgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    mask_gradient: MaskGradient,
    epsilon: float,
    step_size: float,
    steps: int,
    start: Tensor | None = None,
    loss: Loss = cross_entropy,
) -> Tensor:
    """PGD under another gradient of the masks: `relaxed` (with its tau), `detached` or `alone`.

    With `relaxed` this is a backward pass differentiable approximation (BPDA, Athalye et al., ICML 2018).
    """
    network = _with_fsr(model)

    def aim(attacked: Tensor) -> Aim:
        logits = network.forward(attacked)  # not the module itself, which may be compiled without the hooks
        return Aim(loss(logits, labels), logits)

    with mask_gradient(network):
        return _until_wrong(aim, images, labels, start, epsilon=epsilon, step_size=step_size, steps=steps)


def all_heads(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    step_size: float,
    steps: int,
    start: Tensor | None = None,
    loss: Loss = cross_entropy,
) -> Tensor:
    """PGD on the mean loss of the logits z and, of every FSR module, the robust z+ and the recalibrated z~.

    Of CAS and CIFS on that of z and of all probes, jointly as their authors attack them.
    """
    network = model if isinstance(model, FSRNet) and model.has_probes else _with_fsr(model)

    def aim(attacked: Tensor) -> Aim:
        heads = network.heads(attacked)
        logits = [heads.logits, *(part for fsr in heads.fsr for part in (fsr.robust, fsr.recalibrated)), *heads.probes]
        return Aim(torch.stack([loss(part, labels) for part in logits]).mean(dim=0), heads.logits)

    return _until_wrong(aim, images, labels, start, epsilon=epsilon, step_size=step_size, steps=steps)


def feature_matching(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    guides: Tensor,
    epsilon: float,
    step_size: float,
    steps: int,
    start: Tensor | None = None,
) -> Tensor:
    """Draw the pooled outputs of FSR to those of a guide image (Sabour et al., ICLR 2016, arXiv 1511.05122).

    Each image's guide is the nearest, in these features and in squared distance, of the `guides` (m, 3, h, w) that
    the model takes for another class than the label. An image without any stays where it begins.
    """
    network = _with_fsr(model)
    with _pooled_outputs(network) as pooled:
        with torch.no_grad():
            of_images, _ = pooled(images)
            of_guides, guide_logits = pooled(guides)
        is_same = guide_logits.argmax(dim=1)[None] == labels[:, None]  # (n, m)
        targets = of_guides[torch.cdist(of_images, of_guides).masked_fill(is_same, torch.inf).argmin(dim=1)]
        has_guide = ~is_same.all(dim=1)

        def aim(attacked: Tensor) -> Aim:
            features, logits = pooled(attacked)
            return Aim(has_guide * -(features - targets).square().sum(dim=1), logits)

        return _until_wrong(aim, images, labels, start, epsilon=epsilon, step_size=step_size, steps=steps)


def _with_fsr(model: Model) -> FSRNet:
    fsr_of(model)
    assert isinstance(model, FSRNet)
    return model


def _until_wrong(
    aim: Callable[[Tensor], Aim],
    images: Tensor,
    labels: Tensor,
    start: Tensor | None,
    *,
    epsilon: float,
    step_size: float,
    steps: int,
) -> Tensor:
    begin = images if start is None else images + start.to(images)
    return ascend(aim, images, labels, start=begin, epsilon=epsilon, step_size=step_size, steps=steps, patience=0)


@contextmanager
def _pooled_outputs(network: FSRNet) -> Iterator[Callable[[Tensor], tuple[Tensor, Tensor]]]:
    """A function of images: the outputs of all FSR modules, averaged over space (n, channels), and the logits."""
    with recorded(network) as passes:

        def pooled(images: Tensor) -> tuple[Tensor, Tensor]:
            passes.clear()
            logits = network.forward(images)
            return torch.cat([separated.output.mean(dim=(2, 3)) for separated in passes], dim=1), logits

        yield pooled
