"""What the k-NN and mask figures are made of: one pass over a data set, through the FSR module that runs last."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from training.accuracy import BATCH, frozen
from training.attacks import Attack
from training.data import ImageData, to_floats
from training.device import Device
from training.evaluation.mask_statistics import MaskStatistics, mask_statistics
from training.models import FSRNet
from training.models.separated import FeatureName, feature_names, recorded


@dataclass(frozen=True)
class Seen:
    """What a network makes of n images: answers int64 (n,), globally averaged features (n, c) by name, its masks."""

    answers: Tensor
    pooled: dict[FeatureName, Tensor]
    mask: MaskStatistics


def look_inside(
    model: FSRNet,
    data: ImageData,
    device: Device,
    attack: Attack | None = None,
    *,
    progress: Callable[[int], object] = lambda images: None,
) -> Seen:
    """`data` under `attack` on the whole network (None: as it is), in eval mode and float32; tensors on the CPU.

    `progress` is told the images of each batch that is done.
    """
    batches: list[Seen] = []
    with frozen(model):
        for pixels, labels in zip(data.pixels.split(BATCH), data.labels.split(BATCH), strict=True):
            images = device.place_images(to_floats(pixels), model)
            if attack is not None:
                images = attack(model, images, labels.to(device.torch_device))
            with torch.no_grad(), recorded(model) as passes:
                answers = model(images).argmax(dim=1).cpu()
                last = passes[-1]
                pooled = {name: last.named(name).mean(dim=(2, 3)).cpu() for name in feature_names(last.module)}
                batches.append(Seen(answers, pooled, mask_statistics(last)))
            progress(len(labels))
    mask = batches[0].mask
    for batch in batches[1:]:
        mask = mask + batch.mask
    return Seen(
        torch.cat([batch.answers for batch in batches]),
        {name: torch.cat([batch.pooled[name] for batch in batches]) for name in batches[0].pooled},
        mask,
    )
