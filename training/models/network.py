"""Modules in any CNN: `insert` puts them in, `insert_fsr` puts FSR in, `FSRNet` hands the loss their logits."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.models.fsr import FSR
from training.models.separated import FSRLogits, recorded
from training.rivals import Choice, Probed


class Heads(NamedTuple):
    """Everything the losses read from one forward pass; `fsr` and `probes` are empty without such modules."""

    logits: Tensor  # (n, classes)
    fsr: tuple[FSRLogits, ...]  # one per inserted module, in the order they ran
    probes: tuple[Tensor, ...] = ()  # (n, classes) per inserted CAS or CIFS module, in the order they ran


class FSRNet(nn.Module):
    """A network with FSR or rival modules inside. images (n, 3, h, w) in [0, 1] -> logits (n, classes)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits

    @property
    def has_probes(self) -> bool:
        """Whether there is a CAS or CIFS module inside."""
        return any(isinstance(module, Probed) for module in self.modules())

    def heads(self, images: Tensor, labels: Tensor | None = None) -> Heads:
        """The logits and those of the inserted modules: robust, nonrobust and recalibrated, or a probe's.

        In training mode CAS and CIFS mask by `labels` (n,) where they are given, as they are defined.
        """
        probes: list[Tensor] = []

        def after_choice(module: nn.Module, inputs: tuple[Tensor], classes: Tensor) -> Tensor:
            (logits,) = inputs
            probes.append(logits)
            if not module.training or labels is None:
                return classes
            assert isinstance(module, Choice)
            return module.with_labels(logits, labels)

        with recorded(self) as passes, ExitStack() as hooks:
            for module in self.modules():
                if isinstance(module, Probed):
                    hooks.callback(module.choice.register_forward_hook(after_choice).remove)
            logits = self.forward(images)  # not self(), which may be compiled without the hooks
        return Heads(logits, tuple(separated.logits for separated in passes), tuple(probes))


def insert_fsr(
    network: nn.Module,
    after: Sequence[str],
    num_classes: int,
    *,
    image_shape: tuple[int, int, int] = (3, 32, 32),
    tau: float = 0.1,
    mask: str = "gumbel",
    recalibration: bool = True,
) -> FSRNet:
    """Plug an FSR module behind each submodule named in `after`, in place, and wrap the network; see `insert`."""
    if len(set(after)) < len(after):
        raise ValueError(f"after is {list(after)}; expected each name once")

    def build(channels: int) -> nn.Module:
        return FSR(channels, num_classes, tau, mask=mask, recalibration=recalibration)

    return insert(network, dict.fromkeys(after, build), image_shape)


def insert(
    network: nn.Module, after: Mapping[str, Callable[[int], nn.Module]], image_shape: tuple[int, int, int]
) -> FSRNet:
    """Plug a module behind each submodule named in `after`, in place, and wrap the network.

    Each named submodule must yield features (n, c, h, w), and the module built for c channels keeps that shape; c is
    read off one forward pass over a zero image of `image_shape`. Raises ValueError for a name the network lacks or
    features of another rank.
    """
    named = dict(network.named_modules())
    for name in after:
        if name not in named or not name:
            raise ValueError(f"after has {name!r}; expected names of submodules, such as {_examples(named)}")
    channels = _channels(network, list(after), image_shape)
    for name, build in after.items():
        parent, _, child = name.rpartition(".")
        setattr(named[parent], child, nn.Sequential(named[name], build(channels[name]).to(_device(network))))
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
