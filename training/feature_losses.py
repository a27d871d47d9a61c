"""What inserted modules add to the classification loss: FSR's two terms (Eq. 3-5, 7) and the probes of CAS and CIFS."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from training.models import FSRLogits, Heads
from training.objectives import Target

SeparationTarget = Literal["mispredicted", "uniform", "entropy_max", "average"]


def feature_losses(heads: Heads, target: Target, separation_target: SeparationTarget) -> dict[str, Tensor]:
    """Scalars by name: `separation` and `recalibration` with FSR, `probe` with CAS and CIFS; means over the modules."""
    losses = {}
    if heads.fsr:
        separations = [separation_loss(fsr, heads.logits, target, separation_target) for fsr in heads.fsr]
        losses["separation"] = _mean(separations)
        losses["recalibration"] = _mean([_cross_entropy(fsr.recalibrated, target) for fsr in heads.fsr])
    if heads.probes:
        losses["probe"] = _mean([_cross_entropy(probe, target) for probe in heads.probes])
    return losses


def separation_loss(
    fsr: FSRLogits, logits: Tensor, target: Target, separation_target: SeparationTarget = "mispredicted"
) -> Tensor:
    """Eq. 3: f+ is to tell the true class, f- what `SEPARATION_TARGETS` says."""
    nonrobust = SEPARATION_TARGETS[separation_target](fsr.nonrobust.float(), logits, target.labels)
    return _cross_entropy(fsr.robust, target) + nonrobust


def mispredicted(nonrobust: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with y' of Eq. 3, the wrong class that the network finds most likely."""
    return F.cross_entropy(nonrobust, likeliest_mistake(logits, labels))


def uniform(nonrobust: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with the uniform distribution."""
    return -nonrobust.log_softmax(dim=1).mean()


def entropy_max(nonrobust: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """The negative entropy of p-."""
    return (nonrobust.softmax(dim=1) * nonrobust.log_softmax(dim=1)).sum(dim=1).mean()


def average(nonrobust: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """The mean of the cross-entropies with every class but the true one."""
    others = nonrobust.log_softmax(dim=1).scatter(1, labels[:, None], 0.0)
    return -(others.sum(dim=1) / (nonrobust.shape[1] - 1)).mean()


SEPARATION_TARGETS: Mapping[SeparationTarget, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "mispredicted": mispredicted,
    "uniform": uniform,
    "entropy_max": entropy_max,
    "average": average,
}
"""The choices of Table A5: logits of f- and of the network, labels -> what takes the place of CE(p-, y')."""


def likeliest_mistake(logits: Tensor, labels: Tensor) -> Tensor:
    """y' of Eq. 3, (n,): the class with the largest logit among those that are not the label."""
    return logits.detach().scatter(1, labels[:, None], -torch.inf).argmax(dim=1)


def _cross_entropy(logits: Tensor, target: Target) -> Tensor:
    return F.cross_entropy(logits.float(), target.distribution)


def _mean(losses: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(losses)).mean()
