"""What checks and maps read beside the logits, as one network to export."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fsr_serve.artifact import FEATURES, LOGITS, evidence_of
from training.models import FSR


class Separated(NamedTuple):
    """What one FSR module saw and made of it, each (n, c, h, w)."""

    features: Tensor
    nonrobust_mask: Tensor
    output: Tensor


class EvidenceNet(nn.Module):
    """images (n, 3, h, w) -> `logits`, `features`, and for each FSR module `i` what `evidence_of(i)` names.

    `features` (n, c) is the input of the last linear layer, absent where the network has none. The maps
    (n, classes, h', w') are the auxiliary head's weights times the features at each place; their mean over
    places is the head's logits (n, classes). `mask_mass` (n,) is the share of the features' magnitude that
    the mask calls non-robust.
    """

    def __init__(self, network: nn.Module, image_shape: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self._fsr = [module for module in network.modules() if isinstance(module, FSR)]
        auxiliary = {module.auxiliary for module in self._fsr}
        linear = [module for module in network.modules() if isinstance(module, nn.Linear) and module not in auxiliary]
        self._last = _last_to_run(network, linear, image_shape)
        self.output_names = (
            LOGITS,
            *([FEATURES] if self._last else []),
            *(name for index in range(len(self._fsr)) for name in evidence_of(index)),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        separated: dict[int, Separated] = {}
        masks: list[Tensor] = []
        features: list[Tensor] = []

        # by number, because the exporter hands hooks a stand-in for the module
        def after_fsr(index: int, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            separated[index] = Separated(inputs[0], masks.pop(), output)

        hooks = [
            module.separation.register_forward_hook(lambda module, inputs, mask: masks.append(mask))
            for module in self._fsr
        ]
        hooks += [module.register_forward_hook(partial(after_fsr, index)) for index, module in enumerate(self._fsr)]
        hooks += [
            module.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0])) for module in self._last
        ]
        try:
            logits = self.network(images)
        finally:
            for hook in hooks:
                hook.remove()
        evidence = [tensor for index, module in enumerate(self._fsr) for tensor in _evidence(module, separated[index])]
        return (logits, *features, *evidence)


def _evidence(module: FSR, separated: Separated) -> list[Tensor]:
    features, nonrobust_mask, output = separated
    nonrobust = nonrobust_mask * features
    robust = features - nonrobust

    def evidence_map(part: Tensor) -> Tensor:
        return F.conv2d(part, module.auxiliary.weight[:, :, None, None], module.auxiliary.bias)

    maps = [evidence_map(part) for part in (robust, nonrobust, output - robust, output)]
    mass = nonrobust.abs().mean(dim=(1, 2, 3)) / (features.abs().mean(dim=(1, 2, 3)) + 1e-6)
    return [*(part.mean(dim=(2, 3)) for part in maps[:3]), mass, *maps]


def _last_to_run(network: nn.Module, modules: list[nn.Linear], image_shape: tuple[int, int]) -> list[nn.Linear]:
    """The one of `modules` that a forward pass calls last, if it calls any."""
    ran: list[nn.Linear] = []

    def record(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(module, nn.Linear)
        ran.append(module)

    hooks = [module.register_forward_hook(record) for module in modules]
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, *image_shape))
    finally:
        for hook in hooks:
            hook.remove()
    return ran[-1:]
