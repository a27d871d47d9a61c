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
        """With the images to learn from resized, in the device's memory where they fit."""
        return Data(
            _place(self.training.scaled(scale), device),
            self.validation,
            None if self.extra is None else _place(self.extra.scaled(scale), device),
        )


def shuffled_batches(
    data: Data, recipe: Recipe, order: torch.Generator, processes: Processes
) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's pixels and labels of full batches in random order; the remainder sits out this epoch.

    An epoch has as many batches as the training images fill alone, whatever share of them is extra.
    """
    extra_count = round(recipe.extra_fraction * recipe.batch_size)
    own_count = recipe.batch_size - extra_count
    own = torch.randperm(len(data.training), generator=order)
    places = processes.share(torch.arange(recipe.batch_size))
    for step in range(len(data.training) // recipe.batch_size):
        indices = own[step * own_count + places[places < own_count]]
        pixels, labels = data.training.pixels[indices], data.training.labels[indices]
        if data.extra is not None and extra_count > 0:
            drawn = torch.randint(len(data.extra), (extra_count,), generator=order)
            drawn = drawn[places[places >= own_count] - own_count]
            pixels = torch.cat([pixels, data.extra.pixels[drawn]])
            labels = torch.cat([labels, data.extra.labels[drawn]])
        yield pixels, labels


def _place(images: ImageData, device: Device) -> ImageData:
    return images.place(device.torch_device) if device.has_room_for(images.pixels.nbytes) else images
