"""All attacks of an evaluation in torch, by name: the protocol's, and those that need more than a deployed file has."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from training.attacks import Attack, Model, cross_entropy, margin, pgd
from training.attacks.adaptive import all_heads, mask_pgd
from training.attacks.mask_gradients import alone, detached, relaxed
from training.checkpoint import ModelConfig
from training.evaluation.protocol import GRADIENT_ATTACKS, AttackName, Budget, GradientAttack, RandomStarts
from training.evaluation.searches import PGD100, SEARCHES, UNTIL_WRONG, Draws

CheckpointAttack = (
    AttackName
    | Literal["relaxed_mask", "very_relaxed_mask", "detached_mask", "mask_alone"]
    | Literal["all_heads", "all_heads_margin", "feature_matching"]
    | Literal["pgd20_transfer", "ti_fgsm", "di_fgsm", "nattack", "hop_skip_jump", "random_noise", "autoattack"]
)
"""What a checkpoint can be put to: the protocol's attacks, those that know FSR, those that know less or try more."""

LOSSES = {"cross_entropy": cross_entropy, "margin": margin}
USUAL = Budget()
pgd_from_start = partial(pgd, random_start=False)


@dataclass(frozen=True)
class Ascent:
    """An attack along gradients: what it climbs, how, and in which words."""

    path: GradientAttack
    climb: Callable[..., Tensor] = pgd_from_start
    words: str = ""

    def definition(self, budget: Budget) -> str:
        return self.words + self.path.definition(budget)


def _knowing_fsr(climb: Callable[..., Tensor], words: str, path: GradientAttack = PGD100) -> Ascent:
    return Ascent(path, climb, f"{UNTIL_WRONG}{words}: ")


ASCENTS: Mapping[str, Ascent] = {
    **{name: Ascent(path) for name, path in GRADIENT_ATTACKS.items()},
    "pgd20_transfer": Ascent(GRADIENT_ATTACKS["pgd20"]),
    "relaxed_mask": _knowing_fsr(
        partial(mask_pgd, mask_gradient=partial(relaxed, tau=0.3)), "backward through masks of tau 0.3"
    ),
    "very_relaxed_mask": _knowing_fsr(
        partial(mask_pgd, mask_gradient=partial(relaxed, tau=1.0)), "backward through masks of tau 1"
    ),
    "detached_mask": _knowing_fsr(partial(mask_pgd, mask_gradient=detached), "no gradient of the masks"),
    "mask_alone": _knowing_fsr(partial(mask_pgd, mask_gradient=alone), "gradients of the masks alone"),
    "all_heads": _knowing_fsr(all_heads, "all heads"),
    "all_heads_margin": _knowing_fsr(all_heads, "all heads", replace(PGD100, loss="margin")),
}
TRANSFERS = ("pgd20_transfer", "ti_fgsm", "di_fgsm")
"""Crafted on another network, their source."""
MASKS_OF: Mapping[str, tuple[str, ...]] = {
    "relaxed_mask": ("gumbel", "binary"),
    "very_relaxed_mask": ("gumbel", "binary"),
    "mask_alone": ("gumbel",),
}
"""Masks of FSR that have what the attack goes through: a Separation Net, or a gradient of their own."""
OF_HEADS = ("all_heads", "all_heads_margin")
"""On the heads of FSR, or on the probes of CAS and CIFS."""
ADAPTIVE = ("relaxed_mask", "very_relaxed_mask", "detached_mask", "mask_alone", *OF_HEADS, "feature_matching")
"""Attacks that know FSR, and that a network without it has nothing for, but for `OF_HEADS` on `PROBED`."""
PROBED = ("cas", "cifs")
"""Rivals whose masks come from probes, which are trained and attacked with the network."""


def is_possible(name: str, model: ModelConfig) -> bool:
    """Whether the network has what the attack goes through: FSR, such a mask, or for some attacks probes."""
    if name not in ADAPTIVE or (name in OF_HEADS and model.rival in PROBED):
        return True
    return model.fsr and model.mask in MASKS_OF.get(name, (model.mask,))


def attack_named(
    name: CheckpointAttack,
    *,
    epsilon: float,
    seed: int,
    image_shape: tuple[int, int],
    budget: Budget = USUAL,
    first: int = 0,
    source: Model | None = None,
) -> Attack:
    """The attack called `name`, to be used once over images (h, w) in order, from number `first` on.

    What is random about an image depends on its number alone, unless the definition names the images at a time.
    `source` is the network that transfer attacks are crafted on.
    """
    if name in ASCENTS:
        ascent, values = ASCENTS[name], 3 * math.prod(image_shape)
        seeds: list[int | tuple[int, int]] = [seed, *((seed, restart) for restart in range(1, budget.restarts))]
        streams = [RandomStarts(of, image_values=values, first=first) for of in seeds]
        has_starts = ascent.path.random_start and budget.random_start
        attack = _from_each(streams, ascent, epsilon) if has_starts else _climb(ascent, epsilon)
    else:
        attack = SEARCHES[name].make(epsilon, budget.queries, Draws.of(seed, first))
    if name not in TRANSFERS:
        return attack
    if source is None:
        raise ValueError(f"{name} was given no source; expected the network that it is crafted on")
    return lambda model, images, labels: attack(source, images, labels)


def definition_of(name: CheckpointAttack, budget: Budget, num_classes: int, batch: int | None = None) -> str:
    """The attack on a network of so many classes in words, for reports; `batch` images at a time, None: as usual."""
    if name in ASCENTS:
        return ASCENTS[name].definition(budget)
    return SEARCHES[name].definition(budget, num_classes, batch or batch_of(name, budget))


def queries_of(name: CheckpointAttack) -> int:
    """The usual budget, per image; 0 for attacks that see gradients."""
    return SEARCHES[name].queries if name in SEARCHES else 0


def least_queries_of(name: CheckpointAttack) -> int:
    """The fewest with which the attack takes one step; 0 for attacks that see gradients."""
    return SEARCHES[name].least if name in SEARCHES else 0


def tries_of(definition: str) -> int:
    """Random starts or queries that the definition of an attack names; 1 where it names none."""
    named = re.search(r"(\d+) (?:random starts|queries|random corners)", definition)
    return int(named[1]) if named else 1


def has_usual_queries(name: str, definition: str) -> bool:
    """Whether an attack that sees answers only asked no fewer times than is usual; others have none to count."""
    return name not in SEARCHES or tries_of(definition) >= SEARCHES[name].queries


def batch_of(name: CheckpointAttack | None, budget: Budget) -> int:
    """The usual number of images at a time."""
    if name is None:
        return 250
    if name in SEARCHES:
        return SEARCHES[name].batch
    return 250 if ASCENTS[name].path.steps * budget.restarts <= 100 else 25


def _climb(ascent: Ascent, epsilon: float) -> Callable[..., Tensor]:
    return partial(
        ascent.climb,
        epsilon=epsilon,
        step_size=epsilon / ascent.path.divisor,
        steps=ascent.path.steps,
        loss=LOSSES[ascent.path.loss],
    )


def _from_each(streams: list[RandomStarts], ascent: Ascent, epsilon: float) -> Attack:
    """From a start of each stream in turn, until the image is broken; what the images before had does not matter."""
    climb = _climb(ascent, epsilon)

    def from_random_starts(model: Model, images: Tensor, labels: Tensor) -> Tensor:
        adversarial, left = images.clone(), torch.arange(len(images), device=images.device)
        starts = [torch.from_numpy(stream.next(tuple(images.shape), epsilon)) for stream in streams]
        for number, noise in enumerate(starts, start=1):
            found = climb(model, images[left], labels[left], start=noise.to(images.device)[left])
            adversarial[left] = found
            if number < len(starts):
                with torch.no_grad():
                    left = left[model(found).argmax(dim=1) == labels[left]]
            if not len(left):
                break
        return adversarial

    return from_random_starts
