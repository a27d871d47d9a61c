"""What a network costs: parameters, FLOPs, time and memory, with FSR beside without (Table 7 and section 4.4)."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from training.accuracy import frozen
from training.checkpoint import ModelConfig
from training.device import Device
from training.evaluation.protocol import EPSILON
from training.evaluation.suite import attack_named
from training.evaluation.training_step import SIDE, TrainingStep
from training.models import FSRNet, create_model

CLASSES = 10
Call = Callable[[], object]


class Size(NamedTuple):
    """Trainable parameters, and FLOPs of a forward pass over one 32x32 image."""

    parameters: int
    flops: int


def size_of(model: nn.Module) -> Size:
    """Convolutions and matrix products count, two FLOPs per multiply-add.

    Table 7 counts the same way, and batch norm, biases and pooling besides: 0.2 % of a ResNet-18, 0.4 % of a VGG16.
    """
    image = torch.zeros(1, 3, SIDE, SIDE, device=next(model.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), frozen(model):
        model(image)
    return Size(sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops())


def size_of_network(name: str, *, fsr: bool, width: int | None = None) -> Size:
    """Of a network of `BACKBONES` with ten classes, without computing anything."""
    with torch.device("meta"):
        return size_of(create_model(name, fsr=fsr, width=width))


class TimedNetwork:
    """A network of ten classes and what is asked of it, on random 32x32 images."""

    def __init__(self, name: str, *, fsr: bool, width: int | None, device: Device) -> None:
        self._config = ModelConfig(name=name, num_classes=CLASSES, fsr=fsr, width=width)
        self._device = device

    def model(self) -> FSRNet:
        model = self._config.build().eval()
        self._device.place_model(model)
        return model

    def forward_pass(self, batch: int) -> Call:
        """In float32 and without gradients, as accuracies are measured."""
        model = self.model()
        images = self._device.place_images(torch.rand(batch, 3, SIDE, SIDE), model)
        return torch.no_grad()(partial(model, images))

    def pgd20(self, batch: int) -> Call:
        """PGD-20 on the images and the answers to them, in float32."""
        model = self.model()
        images = self._device.place_images(torch.rand(batch, 3, SIDE, SIDE), model)
        labels = torch.randint(CLASSES, (batch,)).to(self._device.torch_device)
        attack = attack_named("pgd20", epsilon=EPSILON, seed=0, image_shape=(SIDE, SIDE))

        def attacked() -> None:
            with frozen(model):
                crafted = attack(model, images, labels)
                with torch.no_grad():
                    model(crafted)

        return attacked

    def training_step(self, batch: int) -> Call:
        """A step of the recipe `paper`, in the device's format, reading and augmentation included."""
        return TrainingStep(self._config, batch, self._device).take


def peak_bytes(network: TimedNetwork, call: str, batch: int, device: Device) -> int:
    """The most memory held while `call`, a method of `TimedNetwork`, ran twice: the GPU's, else a fresh process's.

    That of a process includes Python and torch themselves; ask before this process has grown, or on Linux its own
    peak is inherited.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_bytes, network, call, batch, device).result()


def _peak_bytes(network: TimedNetwork, call: str, batch: int, device: Device) -> int:
    run: Call = getattr(network, call)(batch)
    for _ in range(2):
        run()
    return device.peak_memory_bytes()
