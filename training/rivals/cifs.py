"""Channel-wise Importance-based Feature Selection, Yan et al., ICML 2021 (arXiv 2102.05311), section 3.

A channel's importance is the gradient of the two likeliest classes' logits, summed over its units; the mask is its
softmax over channels. With global average pooling in front of the probe that sum is the gradient with respect to the
pooled feature, which both probes have in closed form; so the mask needs no differentiation in the forward pass and can
be exported. As in the published code the features are taken as given, but the probe learns through the mask too.
"""

import torch
from torch import Tensor, nn

from training.rivals.probe import Choice, Probed

HIDDEN_FEATURES = 128
SHARPNESS = 5.0
"""Beta of the probe's softplus."""


class LinearCIFS(Probed):
    """CIFS with a linear probe: its gradient is the sum of the chosen rows of W."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(nn.Linear(channels, num_classes), Choice(2))

    def mask(self, pooled: Tensor, classes: Tensor) -> Tensor:
        assert isinstance(self.probe, nn.Linear)
        return self.probe.weight[classes].sum(dim=1).softmax(dim=1)


class NonlinearCIFS(Probed):
    """CIFS with the probe linear - softplus - linear."""

    def __init__(self, channels: int, num_classes: int) -> None:
        probe = nn.Sequential(
            nn.Linear(channels, HIDDEN_FEATURES), nn.Softplus(SHARPNESS), nn.Linear(HIDDEN_FEATURES, num_classes)
        )
        super().__init__(probe, Choice(2))

    def mask(self, pooled: Tensor, classes: Tensor) -> Tensor:
        assert isinstance(self.probe, nn.Sequential)
        first, _, last = self.probe
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        slope = torch.sigmoid(SHARPNESS * first(pooled.detach()))  # of the softplus, (n, hidden)
        gradient = (last.weight[classes].sum(dim=1) * slope) @ first.weight
        return gradient.softmax(dim=1)
