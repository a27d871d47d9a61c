"""Other gradients through the masks of FSR, for as long as a `with` block lasts; the forward pass stays as it is.

At the paper's tau of 0.1 a mask saturates, and little gradient passes it. Whether that hides something from an attack
is seen by giving the mask another gradient: a smoother one, none, or nothing but its own.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch
from torch import Tensor, nn

from training.models import FSR, FSRNet
from training.models.masks import BinarySeparation, Separation
from training.models.separated import fsr_modules

MaskGradient = Callable[[FSRNet], AbstractContextManager[None]]


@contextmanager
def relaxed(model: FSRNet, tau: float) -> Iterator[None]:
    """Backward passes see every mask as sigmoid(-r / tau), usually of a larger tau than its own (straight-through).

    Raises ValueError where a mask has no robustness map r, or for a tau that is not positive.
    """
    if not tau > 0:
        raise ValueError(f"tau is {tau}; expected a positive temperature")
    with ExitStack() as hooks:
        for fsr in fsr_of(model):
            separation = fsr.separation
            if not isinstance(separation, Separation | BinarySeparation):
                raise ValueError(
                    f"a mask is {type(separation).__name__}; only masks with a Separation Net can be relaxed"
                )
            scores: list[Tensor] = []

            def after_score(module: nn.Module, inputs: object, robustness_map: Tensor, scores: list = scores) -> None:
                scores.append(robustness_map)

            def after_separation(module: nn.Module, inputs: object, mask: Tensor, scores: list = scores) -> Tensor:
                smooth = torch.sigmoid(scores.pop() / -tau)
                return mask.detach() + (smooth - smooth.detach())  # the difference is exactly zero

            hooks.callback(separation.score.register_forward_hook(after_score).remove)
            hooks.callback(separation.register_forward_hook(after_separation).remove)
        yield


@contextmanager
def detached(model: FSRNet) -> Iterator[None]:
    """No gradient passes any mask: it is a constant of the image. Raises ValueError for a model without FSR."""

    def after_separation(module: nn.Module, inputs: object, mask: Tensor) -> Tensor:
        return mask.detach()

    with ExitStack() as hooks:
        for fsr in fsr_of(model):
            hooks.callback(fsr.separation.register_forward_hook(after_separation).remove)
        yield


@contextmanager
def alone(model: FSRNet) -> Iterator[None]:
    """Gradients pass the masks only: the features that they weigh are constants.

    Raises ValueError for a model without FSR.
    """
    with ExitStack() as hooks:
        for fsr in fsr_of(model):
            attached: list[Tensor] = []

            def before_fsr(module: nn.Module, inputs: tuple[Tensor], attached: list = attached) -> tuple[Tensor]:
                attached.append(inputs[0])
                return (inputs[0].detach(),)

            def before_separation(module: nn.Module, inputs: object, attached: list = attached) -> tuple[Tensor]:
                return (attached.pop(),)

            hooks.callback(fsr.register_forward_pre_hook(before_fsr).remove)
            hooks.callback(fsr.separation.register_forward_pre_hook(before_separation).remove)
        yield


def fsr_of(model: object) -> list[FSR]:
    """The FSR modules inside. Raises ValueError for a model without any."""
    found = list(fsr_modules(model).values()) if isinstance(model, FSRNet) else []
    if not found:
        raise ValueError(
            f"the model is a {type(model).__name__} without FSR; expected an FSRNet with FSR modules inside"
        )
    return found
