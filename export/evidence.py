"""What checks and maps read beside the logits, as one network to export."""

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from fsr_serve.artifact import FEATURES, LOGITS, evidence_of
from training.models.separated import SYMBOLS, Separated, evidence_maps, fsr_modules, recorded


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
        self._fsr = list(fsr_modules(network).values())
        auxiliary = {module.auxiliary for module in self._fsr}
        linear = [module for module in network.modules() if isinstance(module, nn.Linear) and module not in auxiliary]
        self._last = _last_to_run(network, linear, image_shape)
        self.output_names = (
            LOGITS,
            *([FEATURES] if self._last else []),
            *(name for index in range(len(self._fsr)) for name in evidence_of(index)),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features: list[Tensor] = []
        with recorded(self.network) as passes, ExitStack() as hooks:
            for module in self._last:
                keep = module.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
                hooks.callback(keep.remove)
            logits = self.network(images)
        by_module = {separated.module: separated for separated in passes}
        evidence = [tensor for module in self._fsr for tensor in _evidence(by_module[module])]
        return (logits, *features, *evidence)


def _evidence(separated: Separated) -> list[Tensor]:
    maps = [evidence_maps(separated.named(name), separated.module.auxiliary) for name in SYMBOLS]
    nonrobust, features = (part.abs().mean(dim=(1, 2, 3)) for part in (separated.nonrobust, separated.features))
    return [*(part.mean(dim=(2, 3)) for part in maps[:3]), nonrobust / (features + 1e-6), *maps]


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
