"""A step of adversarial training on random images, to be timed."""

from dataclasses import replace

import torch

from training.augmentation import augment
from training.batches import Data, shuffled_batches
from training.checkpoint import ModelConfig, RunConfig
from training.data import ImageData
from training.device import Device
from training.processes import ALONE
from training.recipes import RECIPES
from training.state import State
from training.train import train_epoch

SIDE = 32


class TrainingStep:
    """An epoch of a single batch by the recipe `paper`: PGD-10 and Eq. 5, in the device's format."""

    def __init__(self, model: ModelConfig, batch: int, device: Device) -> None:
        classes = tuple(map(str, range(model.num_classes)))
        pixels = torch.randint(256, (batch, 3, SIDE, SIDE), dtype=torch.uint8)
        images = ImageData(pixels, torch.randint(len(classes), (batch,)), classes)
        self._recipe = replace(RECIPES["paper"], batch_size=batch)
        self._device = device
        self._data = Data(images, images).scaled(1.0, device)
        self._order = torch.Generator().manual_seed(0)
        config = RunConfig(
            model=model,
            recipe_name="paper",
            recipe=self._recipe,
            start=None,
            data="random",
            data_name="random",
            data_sha256="",
            classes=classes,
            image_shape=(SIDE, SIDE),
            seed=0,
        )
        self.state = State.create(config, device, ALONE)

    def take(self) -> None:
        """All of it, reading and augmentation included."""
        with self._device.training():
            train_epoch(
                self.state,
                self._data,
                self._recipe,
                1,
                self._recipe.pgd_steps,
                self._order,
                self._device,
                ALONE,
                lambda epoch, images, means: None,
            )

    def read(self) -> None:
        """Its input pipeline alone."""
        for pixels, labels in shuffled_batches(self._data, self._recipe, self._order, ALONE):
            place = self._device.place
            augmented, _ = augment(place(pixels), place(labels), len(self._data.training.classes), self._recipe, 1.0)
            self._device.place_images(augmented, self.state.model)
