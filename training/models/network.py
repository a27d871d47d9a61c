"""FSR in any CNN: `insert_fsr` puts the modules in, `FSRNet` hands the loss their logits."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.models.fsr import FSR, FSRLogits


class Heads(NamedTuple):
    """Everything the loss of Eq. 5 reads from one forward pass; `fsr` is empty without FSR."""

    logits: Tensor  # (n, classes)
    fsr: tuple[FSRLogits, ...]  # one per inserted module, in the order they ran


class FSRNet(nn.Module):
    """A network with FSR modules inside. images (n, 3, h, w) in [0, 1] -> logits (n, classes)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits

    def heads(self, images: Tensor) -> Heads:
        """The logits and, per inserted module, those of its robust, nonrobust and recalibrated features."""
        masks: list[Tensor] = []
        auxiliary: list[FSRLogits] = []

        def after_separation(module: nn.Module, inputs: tuple[Tensor], mask: Tensor) -> None:
            masks.append(mask)

        def after_fsr(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            assert isinstance(module, FSR)
            auxiliary.append(module.auxiliary_logits(inputs[0], masks.pop(), output))

        modules = [module for module in self.modules() if isinstance(module, FSR)]
        hooks = [module.separation.register_forward_hook(after_separation) for module in modules]
        hooks += [module.register_forward_hook(after_fsr) for module in modules]
        try:
            logits = self(images)
        finally:
            for hook in hooks:
                hook.remove()
        return Heads(logits, tuple(auxiliary))


def insert_fsr(
    network: nn.Module,
    after: Sequence[str],
    num_classes: int,
    *,
    tau: float = 0.1,
    image_shape: tuple[int, int, int] = (3, 32, 32),
) -> FSRNet:
    """Plug an FSR module behind each submodule named in `after`, in place, and wrap the network.

    Each named submodule must yield features (n, c, h, w); c is read off one forward pass over a zero
    image of `image_shape`. Raises ValueError for a name the network lacks or features of another rank.
    """
    named = dict(network.named_modules())
    if len(set(after)) < len(after):
        raise ValueError(f"after is {list(after)}; expected each name once")
    for name in after:
        if name not in named or not name:
            raise ValueError(f"after has {name!r}; expected names of submodules, such as {_examples(named)}")
    channels = _channels(network, after, image_shape)
    for name in after:
        parent, _, child = name.rpartition(".")
        fsr = FSR(channels[name], num_classes, tau).to(_device(network))
        setattr(named[parent], child, nn.Sequential(named[name], fsr))
    return FSRNet(network)


def _channels(network: nn.Module, names: Sequence[str], image_shape: tuple[int, int, int]) -> dict[str, int]:
    shapes: dict[str, tuple[int, ...]] = {}

    def record(name: str, module: nn.Module, inputs: object, output: Tensor) -> None:
        shapes[name] = tuple(getattr(output, "shape", ()))

    hooks = [network.get_submodule(name).register_forward_hook(partial(record, name)) for name in names]
    modes = {module: module.training for module in network.modules()}
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *image_shape, device=_device(network)))
    finally:
        for module, mode in modes.items():
            module.training = mode
        for hook in hooks:
            hook.remove()
    for name in names:
        if len(shapes.get(name, ())) != 4:
            found = shapes.get(name, "nothing: it never ran")
            raise ValueError(f"submodule {name!r} yields {found}; FSR needs features of shape (n, c, h, w)")
    return {name: shape[1] for name, shape in shapes.items()}


def _device(network: nn.Module) -> torch.device:
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def _examples(named: dict[str, nn.Module]) -> str:
    return ", ".join(repr(name) for name in named if name and "." not in name)
