"""Adversarial weight perturbation, Wu et al., NeurIPS 2020 (arXiv 2004.05884), Eq. 8 and 9."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

TINY = 1e-20


@contextmanager
def perturbed_weights(
    model: nn.Module, gamma: float, loss: Callable[[], Tensor], mean: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Within: every weight w of two dimensions or more is w + gamma |w| g / |g|, g the gradient of `loss()`.

    Layer by layer; the published code's proxy step comes to the same. `mean` averages g over processes. Statistics of
    batch norm are not updated by this pass. On leaving, the weights are exactly what they were.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad and weight.dim() > 1]
    with _kept_statistics(model):
        gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                direction = mean(gradient)
                weight.add_(gamma * weight.norm() / (direction.norm() + TINY) * direction)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)


@contextmanager
def _kept_statistics(model: nn.Module) -> Iterator[None]:
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
