"""Activation functions of the backbones by name. FSR's own nets keep ReLU, as in the paper."""

from collections.abc import Callable

from torch import nn

Activation = Callable[[], nn.Module]

ACTIVATIONS: dict[str, Activation] = {"relu": nn.ReLU, "silu": nn.SiLU}
