"""Feature Denoising, Xie et al., CVPR 2019 (arXiv 1812.03411), section 4.1: non-local means, Gaussian version."""

import torch
from torch import Tensor, nn


class FeatureDenoising(nn.Module):
    """features (n, c, h, w) -> features + BN(conv1x1(A g)), of the same shape.

    A is the softmax over positions of theta(x)^T phi(x) / sqrt(c / 2), with 1x1 convolutions theta and phi to c / 2
    channels, and g = x. The scale of the batch norm starts at zero, so that the block starts as the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        embedded = max(channels // 2, 1)
        self.scale = embedded**-0.5
        self.theta = nn.Conv2d(channels, embedded, 1)
        self.phi = nn.Conv2d(channels, embedded, 1)
        self.combine = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        for embedding in (self.theta, self.phi):
            nn.init.normal_(embedding.weight, std=0.01)
            assert embedding.bias is not None
            nn.init.zeros_(embedding.bias)
        nn.init.zeros_(self.bn.weight)

    def forward(self, features: Tensor) -> Tensor:
        theta, phi = self.theta(features).flatten(2), self.phi(features).flatten(2)  # (n, c / 2, h w)
        attention = torch.softmax(theta.transpose(1, 2) @ phi * self.scale, dim=2)  # (n, h w, h w)
        means = features.flatten(2) @ attention.transpose(1, 2)  # (n, c, h w)
        return features + self.bn(self.combine(means.view_as(features)))
