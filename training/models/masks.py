"""The masks that part features into robust and nonrobust: the paper's (Eq. 2) and those it is compared with.

Each module maps features (n, c, h, w) to the negative mask m- = 1 - m in [0, 1], of the same shape.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

HIDDEN_CHANNELS = 64


class Separation(nn.Module):
    """The Separation Net and the soft mask of Eq. 2.

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


class BinarySeparation(nn.Module):
    """The Separation Net and the discrete mask of Eq. 8 (Table A6); it passes no gradient to the net."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = three_convolutions(channels)

    def forward(self, features: Tensor) -> Tensor:
        return (self.score(features) < 0).to(features.dtype)  # sigmoid(r) < 1/2


class RandomMask(nn.Module):
    """Every unit is nonrobust with probability 1/2 (Table A7); in eval mode the expected mask, 1/2 everywhere."""

    def forward(self, features: Tensor) -> Tensor:
        half = torch.full_like(features, 0.5)
        return torch.bernoulli(half) if self.training else half


class GreedyMask(nn.Module):
    """The lowest activations are nonrobust (Table A7): those below the mean of their image.

    The paper does not say how many are the lowest.
    """

    def forward(self, features: Tensor) -> Tensor:
        return (features < features.mean(dim=(1, 2, 3), keepdim=True)).to(features.dtype)


class WithoutSeparation(nn.Module):
    """Everything is nonrobust, so that all of the features is recalibrated (Tables 6 and A7, "w/o Sep")."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.ones_like(features)


MASKS: dict[str, Callable[[int, float], nn.Module]] = {
    "gumbel": Separation,
    "binary": lambda channels, tau: BinarySeparation(channels),
    "random": lambda channels, tau: RandomMask(),
    "greedy": lambda channels, tau: GreedyMask(),
    "none": lambda channels, tau: WithoutSeparation(),
}
"""By name: channels, tau -> the module."""


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
