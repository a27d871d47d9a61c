"""The protocol's attacks in torch."""

import math
from functools import partial

import torch
from torch import Tensor

from training.attacks import Attack, Model, cross_entropy, margin, pgd, square
from training.evaluation.protocol import GRADIENT_ATTACKS, AttackName, RandomStarts

LOSSES = {"cross_entropy": cross_entropy, "margin": margin}


def attack_named(
    name: AttackName, *, epsilon: float, seed: int, image_shape: tuple[int, int], queries: int = 1000
) -> Attack:
    """The attack called `name`, to be used once over images (h, w) in order: its randomness comes from one stream."""
    if name == "square":
        return partial(square, epsilon=epsilon, queries=queries, generator=torch.Generator().manual_seed(seed))
    attack = GRADIENT_ATTACKS[name]
    starts = RandomStarts(seed, image_values=3 * math.prod(image_shape))
    run = partial(
        pgd,
        epsilon=epsilon,
        step_size=epsilon / attack.divisor,
        steps=attack.steps,
        random_start=False,
        loss=LOSSES[attack.loss],
    )

    def from_random_start(model: Model, images: Tensor, labels: Tensor) -> Tensor:
        noise = torch.from_numpy(starts.next(tuple(images.shape), epsilon))
        return run(model, images, labels, start=noise.to(images.device))

    return from_random_start if attack.random_start else run
