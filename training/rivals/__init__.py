"""The modules that Table 4 of the paper compares FSR with, by name."""

from collections.abc import Callable, Mapping

from torch import nn

from training.rivals.cas import CAS
from training.rivals.cifs import LinearCIFS, NonlinearCIFS
from training.rivals.feature_denoising import FeatureDenoising
from training.rivals.probe import Choice, Probed

__all__ = ["CAS", "RIVALS", "Choice", "FeatureDenoising", "LinearCIFS", "NonlinearCIFS", "Probed"]

Build = Callable[..., nn.Module]
"""channels, num_classes -> the module."""


def _denoising(channels: int, num_classes: int) -> nn.Module:
    return FeatureDenoising(channels)


RIVALS: Mapping[str, Mapping[str, Build]] = {
    "fd": dict.fromkeys(("layer1", "layer2", "layer3", "layer4"), _denoising),
    "cas": {"layer4.0": CAS, "layer4.1": CAS},
    "cifs": {"layer4.0": NonlinearCIFS, "layer4.1": LinearCIFS},
}
"""Which module stands behind which part of a ResNet-18. For FD the paper does not say; we choose all four stages."""
