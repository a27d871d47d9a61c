"""Accuracy of a network under an attack, image by image."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from training.attacks import Attack
from training.data import ImageData, to_floats
from training.device import Device

BATCH = 250


def correct_under(
    attack: Attack | None,
    model: nn.Module,
    data: ImageData,
    device: Device,
    *,
    batch: int = BATCH,
    progress: Callable[[int], object] = lambda images: None,
) -> Tensor:
    """Which images keep their label under `attack` (None: as they are): bool (n,), in float32, `batch` at a time.

    `progress` is told the images of each batch that is done. Raises ValueError for a model in train mode, whose
    answers depend on the batch and on noise.
    """
    if model.training:
        raise ValueError("the model is in train mode; expected eval mode: call model.eval() first")
    flags = []
    with frozen(model):
        for pixels, labels in zip(data.pixels.split(batch), data.labels.split(batch), strict=True):
            images = device.place_images(to_floats(pixels), model)
            labels = labels.to(device.torch_device)
            if attack is not None:
                images = attack(model, images, labels)
            with torch.no_grad():
                flags.append((model(images).argmax(dim=1) == labels).cpu())
            progress(len(labels))
    return torch.cat(flags)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and no parameter gradients, so that only the images' gradient is computed; then as before."""
    was_training = model.training
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        model.train(was_training)
        for parameter in trained:
            parameter.requires_grad_(True)
