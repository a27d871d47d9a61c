"""The protocol's attacks in torch."""

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from training.attacks import Attack, Model, cross_entropy, margin, pgd, square
from training.evaluation.protocol import GRADIENT_ATTACKS, AttackName, Budget, RandomStarts, definition_of

__all__ = ["attack_named", "batch_of", "definition_of", "queries_of"]

CheckpointAttack = AttackName

USUAL = Budget()
LOSSES = {"cross_entropy": cross_entropy, "margin": margin}


def attack_named(
    name: AttackName,
    *,
    epsilon: float,
    seed: int,
    image_shape: tuple[int, int],
    budget: Budget = USUAL,
    first: int = 0,
) -> Attack:
    """The attack called `name`, to be used once over images (h, w) in order, from number `first` on.

    Random starts come from one stream over all images, other randomness from one that begins at `first`.
    """
    if name == "square":
        return partial(square, epsilon=epsilon, queries=budget.queries, generator=_generator(seed, first))
    attack = GRADIENT_ATTACKS[name]
    run = partial(
        pgd,
        epsilon=epsilon,
        step_size=epsilon / attack.divisor,
        steps=attack.steps,
        random_start=False,
        loss=LOSSES[attack.loss],
    )
    if not (attack.random_start and budget.random_start):
        return run

    values = 3 * math.prod(image_shape)
    seeds: list[int | tuple[int, int]] = [seed, *((seed, restart) for restart in range(1, budget.restarts))]
    streams = [RandomStarts(of, image_values=values, first=first) for of in seeds]

    def from_random_starts(model: Model, images: Tensor, labels: Tensor) -> Tensor:
        adversarial, left = images.clone(), torch.arange(len(images), device=images.device)
        for stream in streams:
            noise = torch.from_numpy(stream.next(tuple(images.shape), epsilon)).to(images.device)
            found = run(model, images[left], labels[left], start=noise[left])
            adversarial[left] = found
            if stream is not streams[-1]:  # an image that is broken needs no other start
                with torch.no_grad():
                    left = left[model(found).argmax(dim=1) == labels[left]]
            if not len(left):
                break
        return adversarial

    return from_random_starts


def queries_of(attack: CheckpointAttack | None) -> int:
    """The usual budget, per image."""
    return 1000


def batch_of(attack: CheckpointAttack | None) -> int:
    """Images at a time: fewer for attacks that take long, so that little is lost by an interruption."""
    return 100 if attack == "square" else 250


def _generator(*seeds: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
