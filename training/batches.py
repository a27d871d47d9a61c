"""What a run learns from, in random batches of which every process takes its share."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from training.data import ImageData
from training.device import Device
from training.processes import Processes
from training.recipes import Recipe


@dataclass(frozen=True)
class Data:
    """What a run learns from and is judged by."""

    training: ImageData
    validation: ImageData
    extra: ImageData | None = None
    """More images of the same classes, usually generated, for the recipe's `extra_fraction` of each batch."""

    def scaled(self, scale: float, device: Device) -> "Data":
        """With the images to learn from resized, in the device's memory where all of them fit."""
        training, extra = self.training.scaled(scale), None if self.extra is None else self.extra.scaled(scale)
        size = training.pixels.nbytes + (0 if extra is None else extra.pixels.nbytes)
        if device.has_room_for(size):
            training = training.place(device.torch_device)
            extra = None if extra is None else extra.place(device.torch_device)
        return Data(training, self.validation, extra)


def shuffled_batches(
    data: Data, recipe: Recipe, order: torch.Generator, processes: Processes
) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's pixels and labels of full batches in random order; the remainder sits out this epoch.

    An epoch has as many batches as the training images fill alone, whatever share of them is extra.
    """
    steps = len(data.training) // recipe.batch_size
    extra_count = round(recipe.extra_fraction * recipe.batch_size)
    own_count = recipe.batch_size - extra_count
    places = processes.share(torch.arange(recipe.batch_size))
    own = torch.randperm(len(data.training), generator=order)[: steps * own_count].view(steps, own_count)
    own = _beside(data.training, own[:, places[places < own_count]])
    if data.extra is None or extra_count == 0:
        for indices in own:
            yield data.training.pixels[indices], data.training.labels[indices]
        return
    drawn = torch.randint(len(data.extra), (steps, extra_count), generator=order)
    drawn = _beside(data.extra, drawn[:, places[places >= own_count] - own_count])
    for indices, extra in zip(own, drawn, strict=True):
        pixels = torch.cat([data.training.pixels[indices], data.extra.pixels[extra]])
        labels = torch.cat([data.training.labels[indices], data.extra.labels[extra]])
        yield pixels, labels


def _beside(images: ImageData, indices: Tensor) -> Tensor:
    """An epoch's indices where the images lie, so that a GPU is not waited for in every step."""
    return indices.to(images.pixels.device, non_blocking=True)
