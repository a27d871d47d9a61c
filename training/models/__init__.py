"""The networks of the paper by name, and FSR for any other CNN."""

from typing import NamedTuple

from torch import nn

from training.models.fsr import FSR, FSRLogits, Separation
from training.models.network import FSRNet, Heads, insert_fsr
from training.models.resnet import ResNet18
from training.models.vgg import VGG16
from training.models.wide_resnet import WideResNet34

__all__ = ["BACKBONES", "FSR", "FSRLogits", "FSRNet", "Heads", "Separation", "create_model", "insert_fsr"]


class Backbone(NamedTuple):
    """A network class, the width the paper gives it, and where the paper puts FSR."""

    build: type[nn.Module]
    width: int
    fsr_after: str


BACKBONES = {
    "resnet18": Backbone(ResNet18, 64, "layer4"),
    "vgg16": Backbone(VGG16, 64, "block4"),
    "wide_resnet34_10": Backbone(WideResNet34, 160, "final"),
}


def create_model(
    name: str, *, num_classes: int = 10, fsr: bool = True, width: int | None = None, tau: float = 0.1
) -> FSRNet:
    """Build `resnet18`, `vgg16` or `wide_resnet34_10`, with FSR where the paper has it unless `fsr` is False.

    `width` is the channels of the first stage, the paper's by default (64, 64, 160). Raises ValueError for
    an unknown name, fewer than two classes, a width below one or a tau that is not positive.
    """
    if name not in BACKBONES:
        raise ValueError(f"model is {name!r}; expected one of {', '.join(BACKBONES)}")
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}; expected 2 or more")
    if width is not None and width < 1:
        raise ValueError(f"width is {width}; expected 1 or more channels in the first stage")
    if not tau > 0:
        raise ValueError(f"tau is {tau}; expected a positive temperature")
    backbone = BACKBONES[name]
    network = backbone.build(num_classes, width or backbone.width)
    return insert_fsr(network, [backbone.fsr_after] if fsr else [], num_classes, tau=tau)
