"""Feature Separation and Recalibration, Kim et al., CVPR 2023 (arXiv 2303.13846), section 3.

The output needs neither the robust feature nor the auxiliary head: f+ + f- = f, so
f~ = f+ + f~- = f + m- * R(m- * f) with m- = 1 - m. Only the loss asks for the rest.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

HIDDEN_CHANNELS = 64


class FSRLogits(NamedTuple):
    """What the auxiliary head of one FSR module makes of f+, f- and f~-; each (n, classes)."""

    robust: Tensor
    nonrobust: Tensor
    recalibrated: Tensor


class Separation(nn.Module):
    """Features (n, c, h, w) -> the negative mask m- = 1 - m in (0, 1), same shape (Eq. 2).

    The two-way Gumbel softmax of Eq. 2 is sigmoid((r + g1 - g2) / tau), and the difference of two
    Gumbel draws is one logistic draw. In eval mode both draws are fixed at the same value and cancel.
    """

    def __init__(self, channels: int, tau: float) -> None:
        super().__init__()
        self.tau = tau
        self.score = three_convolutions(channels)

    def forward(self, features: Tensor) -> Tensor:
        robustness_map = self.score(features)  # (n, c, h, w)
        if self.training:
            robustness_map = robustness_map + logistic_like(robustness_map)
        return torch.sigmoid(robustness_map / -self.tau)


class FSR(nn.Module):
    """Features (n, c, h, w) -> f~ of the same shape, non-robust units recalibrated instead of dropped.

    `auxiliary` is the head h of Eq. 3 and 4: one linear layer on globally averaged features, shared by
    f+, f- and f~-. It is used by the loss alone, through `FSRNet.heads`.
    """

    def __init__(self, channels: int, num_classes: int, tau: float) -> None:
        super().__init__()
        self.separation = Separation(channels, tau)
        self.recalibration = three_convolutions(channels)
        self.auxiliary = nn.Linear(channels, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        nonrobust_mask = self.separation(features)
        return features + nonrobust_mask * self.recalibration(nonrobust_mask * features)

    def auxiliary_logits(self, features: Tensor, nonrobust_mask: Tensor, output: Tensor) -> FSRLogits:
        """Logits from f+, f- and f~- of one forward pass, given its input, mask and output."""
        features, nonrobust, output = (x.mean(dim=(2, 3)) for x in (features, nonrobust_mask * features, output))
        robust = features - nonrobust
        return FSRLogits(*(self.auxiliary(x) for x in (robust, nonrobust, output - robust)))


def logistic_like(tensor: Tensor) -> Tensor:
    """Standard logistic noise of the given shape: log u - log(1 - u), finite in half precision too."""
    uniform = torch.rand(tensor.shape, device=tensor.device)
    return torch.logit(uniform, eps=2**-24).to(tensor.dtype)


def three_convolutions(channels: int) -> nn.Sequential:
    """The Separation and the Recalibration Net: three 3x3 convolutions, BN and ReLU between them.

    The last one is bare, so that scores and corrections may be negative (as in the published code).
    """

    def convolution(inputs: int, outputs: int) -> nn.Conv2d:
        return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)

    def block(inputs: int) -> list[nn.Module]:
        return [convolution(inputs, HIDDEN_CHANNELS), nn.BatchNorm2d(HIDDEN_CHANNELS), nn.ReLU()]

    return nn.Sequential(*block(channels), *block(HIDDEN_CHANNELS), convolution(HIDDEN_CHANNELS, channels))
