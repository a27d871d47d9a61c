"""What adversarial training minimises: the classification loss and FSR's two (Eq. 3-5)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from training.models import FSRLogits, Heads


class Losses(NamedTuple):
    """Scalars: the sum that is minimised and the parts it is made of."""

    total: Tensor
    classification: Tensor
    separation: Tensor
    recalibration: Tensor


def adversarial_training(heads: Heads, labels: Tensor, *, lambda_sep: float, lambda_rec: float) -> Losses:
    """Eq. 5 with cross-entropy as L_cls; the FSR terms are means over the inserted modules."""
    classification = F.cross_entropy(heads.logits, labels)
    separation = _mean([separation_loss(fsr, heads.logits, labels) for fsr in heads.fsr], classification)
    recalibration = _mean([F.cross_entropy(fsr.recalibrated, labels) for fsr in heads.fsr], classification)
    total = classification + lambda_sep * separation + lambda_rec * recalibration
    return Losses(total, classification, separation, recalibration)


def separation_loss(fsr: FSRLogits, logits: Tensor, labels: Tensor) -> Tensor:
    """Eq. 3: f+ is to tell the true class, f- the wrong class that the network finds most likely."""
    return F.cross_entropy(fsr.robust, labels) + F.cross_entropy(fsr.nonrobust, likeliest_mistake(logits, labels))


def likeliest_mistake(logits: Tensor, labels: Tensor) -> Tensor:
    """y' of Eq. 3, (n,): the class with the largest logit among those that are not the label."""
    return logits.detach().scatter(1, labels[:, None], -torch.inf).argmax(dim=1)


def _mean(losses: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack(losses).mean() if losses else torch.zeros_like(like)
