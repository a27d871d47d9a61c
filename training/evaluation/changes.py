"""What images are put to besides attacks, by name: corruptions of each severity, and rotations."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import mean
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from training.accuracy import correct_under
from training.data import ImageData
from training.device import Device
from training.evaluation.corruptions import CORRUPTIONS, SEVERITIES, Corrupt, CorruptionName, Pixels
from training.evaluation.rotations import grid, randomly_rotated

Alter = Callable[[Pixels, np.random.Generator], Pixels]

Kind = CorruptionName | Literal["rotation_random", "rotation_worst10", "rotation_grid"]
"""What can be asked for: each corruption stands for all its severities."""
USUAL_KINDS: tuple[Kind, ...] = (*CORRUPTIONS, "rotation_random", "rotation_worst10")
"""All but the grid, which takes hundreds of times as long as any other."""


@dataclass(frozen=True)
class Change:
    """One or several versions of an image; it counts as right if the network is right about each of them."""

    definition: str
    versions: tuple[Alter, ...]


def names_of(kind: Kind) -> tuple[str, ...]:
    """The changes that a kind stands for, as they are called in evaluation.json."""
    return tuple(f"{kind}_{severity}" for severity in SEVERITIES) if kind in CORRUPTIONS else (kind,)


def mean_over_severities(accuracies: Mapping[str, float], kind: Kind) -> float:
    """Of accuracies by name of change."""
    return mean(accuracies[name] for name in names_of(kind))


def _corruptions() -> Mapping[str, Change]:
    return {
        name: Change(
            f"{kind.replace('_', ' ')}, severity {severity} of CIFAR-10-C", (partial(_corrupted, corrupt, severity),)
        )
        for kind, corrupt in CORRUPTIONS.items()
        for severity, name in zip(SEVERITIES, names_of(kind), strict=True)
    }


def _corrupted(corrupt: Corrupt, severity: int, pixels: Pixels, random: np.random.Generator) -> Pixels:
    return corrupt(pixels, severity, random)


LIMITS = "up to 30 degrees and 3/32 of the side each way"
CHANGES: Mapping[str, Change] = {
    **_corruptions(),
    "rotation_random": Change(f"one random rotation and shift, {LIMITS}", (randomly_rotated,)),
    "rotation_worst10": Change(
        f"right under each of 10 random rotations and shifts, {LIMITS}", (randomly_rotated,) * 10
    ),
    "rotation_grid": Change(f"right under each of 31 rotations by 5x5 shifts, {LIMITS}", grid()),
}


def correct_under_change(
    change: Change, model: nn.Module, data: ImageData, device: Device, *, seed: int, first: int = 0
) -> Tensor:
    """Which images, numbered from `first` on, are right in each version: bool (n,), in float32.

    What is drawn depends on seed, image and version alone. Raises ValueError for a model in train mode.
    """
    correct = torch.ones(len(data), dtype=torch.bool)
    for version, alter in enumerate(change.versions):
        left = correct.nonzero().squeeze(1)
        if not len(left):
            break
        pixels = [
            alter(image, np.random.default_rng((seed, first + int(index), version)))
            for index, image in zip(left, data.pixels[left].permute(0, 2, 3, 1).numpy(), strict=True)
        ]
        altered = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
        correct[left] = correct_under(None, model, replace(data.subset(left), pixels=altered), device)
    return correct
