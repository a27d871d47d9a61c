"""The features inside FSR modules during a forward pass: f+, f-, f~- and f~ (arXiv 2303.13846, section 3)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from training.models import FSR
from training.models.masks import WithoutSeparation

FeatureName = Literal["robust", "nonrobust", "recalibrated", "output"]

SYMBOLS: Mapping[FeatureName, str] = {"robust": "f+", "nonrobust": "f-", "recalibrated": "f~-", "output": "f~"}
"""Of the paper, in plain text."""


@dataclass(frozen=True)
class Separated:
    """What one FSR module saw in one forward pass and made of it; every tensor is (n, c, h, w)."""

    module: FSR
    features: Tensor
    nonrobust_mask: Tensor
    output: Tensor
    robustness_map: Tensor | None
    """The scores r that the mask is made of; None for a mask without scores."""

    @property
    def robust(self) -> Tensor:
        return self.features - self.nonrobust

    @property
    def nonrobust(self) -> Tensor:
        return self.nonrobust_mask * self.features

    @property
    def recalibrated(self) -> Tensor:
        return self.output - self.robust

    def named(self, name: FeatureName) -> Tensor:
        part: Tensor = getattr(self, name)
        return part


def feature_names(module: FSR) -> tuple[FeatureName, ...]:
    """The features that the module has: without separation none is robust, without recalibration none recalibrated."""
    missing: set[FeatureName] = set()
    if isinstance(module.separation, WithoutSeparation):
        missing.add("robust")
    if module.recalibration is None:
        missing.add("recalibrated")
    return tuple(name for name in SYMBOLS if name not in missing)


def fsr_modules(model: nn.Module) -> dict[str, FSR]:
    """The FSR modules in `model` by their names in it."""
    return {name: module for name, module in model.named_modules() if isinstance(module, FSR)}


@contextmanager
def recorded(model: nn.Module) -> Iterator[list[Separated]]:
    """A list to which every FSR module in `model`, or `model` itself, adds what it does, in the order they run."""
    passes: list[Separated] = []
    scores: list[Tensor] = []
    masks: list[Tensor] = []

    def after_fsr(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(module, FSR)
        passes.append(Separated(module, inputs[0], masks.pop(), output, scores.pop() if scores else None))

    hooks = []
    for module in fsr_modules(model).values():
        if isinstance(score := getattr(module.separation, "score", None), nn.Module):
            hooks.append(score.register_forward_hook(lambda module, inputs, scored: scores.append(scored)))
        hooks.append(module.separation.register_forward_hook(lambda module, inputs, mask: masks.append(mask)))
        hooks.append(module.register_forward_hook(after_fsr))
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()
