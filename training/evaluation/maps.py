"""Where in an image the evidence for a class lies: Grad-CAM, and the class-evidence maps of FSR's features.

The paper draws Grad-CAM of f+, f- and f~- (Figure 1) and does not say through which head. We take the auxiliary
one, which was trained on them. It is linear on averaged features, so that Grad-CAM through it is, up to the factor
1 / (h w) and the ReLU, the evidence map; we keep the sign, because evidence against a class is what f- is made of.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.accuracy import frozen
from training.models import FSRNet
from training.models.separated import FeatureName, evidence_maps, feature_names, recorded

POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@dataclass(frozen=True)
class Maps:
    """Of n images (n, 3, h, w), for one class each; all on the CPU."""

    images: Tensor
    answers: Tensor
    """The network's class for each image, (n,)."""
    grad_cam: Tensor
    """(n, h', w'), 0 or more."""
    evidence: dict[FeatureName, Tensor]
    """Signed, (n, h', w') each, of the FSR module that runs last."""


def maps_of(model: FSRNet, images: Tensor, classes: Tensor) -> Maps:
    """All maps of images (n, 3, h, w) for `classes` (n,), in eval mode."""
    with frozen(model), torch.no_grad(), recorded(model) as passes:
        answers = model(images).argmax(dim=1)
        last = passes[-1]
        own = torch.arange(len(images), device=images.device)
        evidence = {
            name: evidence_maps(last.named(name), last.module.auxiliary)[own, classes].cpu()
            for name in feature_names(last.module)
        }
    return Maps(images.cpu(), answers.cpu(), grad_cam(model, images, classes).cpu(), evidence)


def grad_cam(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391, Eq. 1 and 2) of the last features: (n, h', w').

    Classes are (n,). Runs in eval mode. The last features are those of the last module that yields (n, c, h', w')
    and does not pool them. Raises ValueError for a network without such a module.
    """
    with frozen(model), torch.enable_grad(), _last_features(model) as outputs:
        logits = model(images.detach().requires_grad_())
        if not outputs:
            raise ValueError("no module of the network yields features (n, c, h, w); Grad-CAM needs some")
        features = outputs[-1]
        (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), features)
    weights = gradient.mean(dim=(2, 3), keepdim=True)  # (n, c, 1, 1)
    return F.relu((weights * features).sum(dim=1)).detach()


@contextmanager
def _last_features(model: nn.Module) -> Iterator[list[Tensor]]:
    """A list whose only item is the newest output of rank 4; empty before there is one."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and not isinstance(module, POOLING):
            outputs[:] = [output]

    hooks = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
