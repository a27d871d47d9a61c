"""The networks of the paper by name, and FSR for any other CNN."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

from torch import nn

from training.models.activations import ACTIVATIONS
from training.models.fsr import FSR
from training.models.masks import MASKS, Separation
from training.models.network import FSRNet, Heads, insert, insert_fsr
from training.models.resnet import ResNet18, ResNet50
from training.models.separated import FSRLogits
from training.models.vgg import VGG16
from training.models.wide_resnet import WideResNet34
from training.rivals import RIVALS

__all__ = ["BACKBONES", "FSR", "FSRLogits", "FSRNet", "Heads", "Separation", "create_model", "insert_fsr"]

IMAGE_SHAPE = (3, 32, 32)
"""Of the image that inserted modules read their channels from; any size works afterwards."""


class Backbone(NamedTuple):
    """A network class, the width the paper gives it, and where the paper puts FSR."""

    build: type[nn.Module]
    width: int
    fsr_after: str


BACKBONES = {
    "resnet18": Backbone(ResNet18, 64, "layer4"),
    "resnet50": Backbone(ResNet50, 64, "layer4"),
    "vgg16": Backbone(VGG16, 64, "block4"),
    "wide_resnet34_10": Backbone(WideResNet34, 160, "final"),
}


def create_model(
    name: str,
    *,
    num_classes: int = 10,
    fsr: bool = True,
    width: int | None = None,
    tau: float = 0.1,
    after: Sequence[str] | None = None,
    mask: str = "gumbel",
    recalibration: bool = True,
    rival: str | None = None,
    activation: str = "relu",
) -> FSRNet:
    """Build a network of `BACKBONES`, with FSR in it unless `fsr` is False.

    `width` is the channels of the first stage, the paper's by default (64, 64, 64, 160). FSR stands behind the
    submodules named in `after`, by default where the paper has it. `mask` (one of `MASKS`), `recalibration` and `tau`
    are FSR's. `rival` (one of `RIVALS`) stands in for FSR in a ResNet-18. Raises ValueError for a value that is none
    of these, fewer than two classes, a width below one or a tau that is not positive.
    """
    _check_name("model", name, BACKBONES)
    _check_name("mask", mask, MASKS)
    _check_name("activation", activation, ACTIVATIONS)
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}; expected 2 or more")
    if width is not None and width < 1:
        raise ValueError(f"width is {width}; expected 1 or more channels in the first stage")
    if after is not None and not after:
        raise ValueError("after is empty; expected names of submodules, or a network without FSR: --no-fsr")
    if not tau > 0:
        raise ValueError(f"tau is {tau}; expected a positive temperature")
    backbone = BACKBONES[name]
    network = backbone.build(num_classes, width or backbone.width, ACTIVATIONS[activation])
    if rival is not None:
        _check_name("rival", rival, RIVALS)
        if fsr or name != "resnet18":
            raise ValueError(
                f"rival is {rival!r} with model {name!r} and fsr {fsr}; expected resnet18 without FSR: --no-fsr"
            )
        modules = {place: partial(build, num_classes=num_classes) for place, build in RIVALS[rival].items()}
        return insert(network, modules, IMAGE_SHAPE)
    places = (after or [backbone.fsr_after]) if fsr else []
    return insert_fsr(network, places, num_classes, tau=tau, mask=mask, recalibration=recalibration)


def _check_name(what: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise ValueError(f"{what} is {name!r}; expected one of {', '.join(known)}")
