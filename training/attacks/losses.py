"""What attacks raise: losses of logits (n, classes) and labels (n,), one number per image."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]

CW_CONFIDENCE = 50.0


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy per image, (n,)."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The C&W loss per image, (n,): -max(z_y - max_{j != y} z_j + 50, 0)."""
    return -F.relu(lead(logits, labels) + CW_CONFIDENCE)


def lead(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the label minus the largest other, (n,); negative where the answer is wrong."""
    true_logit = logits.gather(1, labels[:, None]).squeeze(1)
    return true_logit - logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
