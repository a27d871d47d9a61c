"""What FSR modules make of their features in a forward pass: f+, f-, f~- and f~ (arXiv 2303.13846, section 3)."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from training.models.fsr import FSR
from training.models.masks import WithoutSeparation

FeatureName = Literal["robust", "nonrobust", "recalibrated", "output"]

SYMBOLS: Mapping[FeatureName, str] = {"robust": "f+", "nonrobust": "f-", "recalibrated": "f~-", "output": "f~"}
"""Of the paper, in plain text."""


class FSRLogits(NamedTuple):
    """What the auxiliary head of one FSR module makes of f+, f- and f~-; each (n, classes)."""

    robust: Tensor
    nonrobust: Tensor
    recalibrated: Tensor


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

    @property
    def logits(self) -> FSRLogits:
        """By the auxiliary head; averaging first is cheaper, and f+ + f- = f."""
        features, nonrobust, output = (x.mean(dim=(2, 3)) for x in (self.features, self.nonrobust, self.output))
        robust = features - nonrobust
        return FSRLogits(*(self.module.auxiliary(x) for x in (robust, nonrobust, output - robust)))


def feature_names(module: FSR) -> tuple[FeatureName, ...]:
    """The features that the module has: without separation none is robust, without recalibration none recalibrated."""
    missing: set[FeatureName] = set()
    if isinstance(module.separation, WithoutSeparation):
        missing.add("robust")
    if module.recalibration is None:
        missing.add("recalibrated")
    return tuple(name for name in SYMBOLS if name not in missing)


def evidence_maps(features: Tensor, head: nn.Linear) -> Tensor:
    """What each place of the features (n, c, h, w) says for each class: (n, classes, h, w).

    The linear head applied place by place, so that the mean over places is its logits on averaged features.
    """
    return F.conv2d(features, head.weight[:, :, None, None], head.bias)


def fsr_modules(model: nn.Module) -> dict[str, FSR]:
    """The FSR modules in `model` by their names in it."""
    return {name: module for name, module in model.named_modules() if isinstance(module, FSR)}


@contextmanager
def recorded(model: nn.Module) -> Iterator[list[Separated]]:
    """A list to which every FSR module in `model`, or `model` itself, adds what it does, in the order they run.

    Within, call `forward` of what may be compiled: compiled calls run no hooks.
    """
    passes: list[Separated] = []
    scores: list[Tensor] = []
    masks: list[Tensor] = []

    # bound to the module, because the exporter hands hooks a stand-in for it
    def after_fsr(fsr: FSR, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        passes.append(Separated(fsr, inputs[0], masks.pop(), output, scores.pop() if scores else None))

    with ExitStack() as hooks:
        for fsr in fsr_modules(model).values():
            if isinstance(score := getattr(fsr.separation, "score", None), nn.Module):
                keep_scores = score.register_forward_hook(lambda module, inputs, scored: scores.append(scored))
                hooks.callback(keep_scores.remove)
            keep_mask = fsr.separation.register_forward_hook(lambda module, inputs, mask: masks.append(mask))
            hooks.callback(keep_mask.remove)
            hooks.callback(fsr.register_forward_hook(partial(after_fsr, fsr)).remove)
        yield passes
