"""Networks whose FSR modules pass on one of their features instead of f~ (Table 5a, section 4.3).

The paper passes "different features from FSR into the subsequent layers instead of the final feature", without
training anew: its f+ (47.89 under Ensemble) is not the network trained without recalibration (47.32, Table 6). It
measures "the robustness of the model upon replacing", but does not say where the attack is crafted. We choose the
network that answers, with the replaced feature: white-box, as everywhere else. An attack carried over from the
whole network would flatter the features that the rest of it was not trained with.
"""

import copy

from torch import Tensor, nn

from training.models import FSR, FSRNet
from training.models.separated import SYMBOLS, FeatureName, feature_names, fsr_modules, recorded


class PassedOn(nn.Module):
    """Features (n, c, h, w) -> the named one of what `fsr` makes of them, of the same shape."""

    def __init__(self, fsr: FSR, passed: FeatureName) -> None:
        super().__init__()
        self.fsr = fsr
        self.passed = passed

    def forward(self, features: Tensor) -> Tensor:
        with recorded(self.fsr) as passes:
            self.fsr(features)
        return passes[0].named(self.passed)


def passing_on(model: FSRNet, features: FeatureName) -> FSRNet:
    """A copy of `model` in which every FSR module passes on `features`; `model` stays as it is.

    The copy has the mode of `model`, and gradients pass through it, so that it can be attacked as any network.
    `heads` still gives the logits of all features. Raises ValueError where there is no FSR module, or one without
    that feature.
    """
    copied = copy.deepcopy(model)
    modules = fsr_modules(copied)
    if not modules:
        raise ValueError("the model has no FSR module; expected one whose features can be passed on")
    for name, module in modules.items():
        if features not in (known := feature_names(module)):
            raise ValueError(
                f"features is {features!r} ({SYMBOLS[features]}); {name} has only {', '.join(map(repr, known))}"
            )
        parent, _, child = name.rpartition(".")
        setattr(copied.get_submodule(parent), child, PassedOn(module, features).train(module.training))
    return copied
