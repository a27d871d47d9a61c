"""All attacks of an evaluation in torch, by name: the protocol's, and those that need more than a deployed file has."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from training.attacks import (
    Attack,
    Model,
    autoattack,
    cross_entropy,
    di_fgsm,
    hop_skip_jump,
    margin,
    nattack,
    pgd,
    random_noise,
    square,
    ti_fgsm,
)
from training.attacks.adaptive import all_heads, feature_matching, mask_pgd
from training.attacks.autoattack import version_for
from training.attacks.hop_skip_jump import LEAST_QUERIES as HOP_SKIP_JUMP_QUERIES
from training.attacks.mask_gradients import alone, detached, relaxed
from training.attacks.nattack import LEAST_QUERIES as NATTACK_QUERIES
from training.attacks.transfer import DIVISOR, STEPS
from training.checkpoint import ModelConfig
from training.evaluation.protocol import (
    GRADIENT_ATTACKS,
    AttackName,
    Budget,
    GradientAttack,
    ImageStreams,
    RandomStarts,
)

CheckpointAttack = (
    AttackName
    | Literal["relaxed_mask", "very_relaxed_mask", "detached_mask", "mask_alone"]
    | Literal["all_heads", "all_heads_margin", "feature_matching"]
    | Literal["pgd20_transfer", "ti_fgsm", "di_fgsm", "nattack", "hop_skip_jump", "random_noise", "autoattack"]
)
"""What a checkpoint can be put to: the protocol's attacks, those that know FSR, those that know less or try more."""

LOSSES = {"cross_entropy": cross_entropy, "margin": margin}
USUAL = Budget()
PGD100 = GRADIENT_ATTACKS["pgd100"]
UNTIL_WRONG = "until the answer is wrong, "
AT_A_TIME = "{batch} images at a time"
TRANSFER_STEPS = f"{STEPS} steps of epsilon/{DIVISOR}, no random start"
pgd_from_start = partial(pgd, random_start=False)


@dataclass(frozen=True)
class Ascent:
    """An attack along gradients: what it climbs, how, and in which words."""

    path: GradientAttack
    climb: Callable[..., Tensor] = pgd_from_start
    words: str = ""

    def definition(self, budget: Budget) -> str:
        return self.words + self.path.definition(budget)


@dataclass(frozen=True)
class Draws:
    """What is random in an attack on images from some number on."""

    of_each: ImageStreams
    together: torch.Generator
    """One for all that are shown at a time."""

    @classmethod
    def of(cls, seed: int, first: int) -> Self:
        together = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, first)).generate_state(1)[0]))
        return cls(ImageStreams(seed, first=first), together)


@dataclass(frozen=True)
class Search:
    """An attack with randomness of its own, made from epsilon, queries per image and what it draws."""

    make: Callable[[float, int, Draws], Attack]
    words: str
    """Of the definition; `{queries}` stands for their number, `{version}` for that of AutoAttack, `{batch}` for the
    number of images at a time where it matters: they draw together, or are shown each other."""
    queries: int = 0
    """The usual number per image."""
    least: int = 0
    """The price of its first step: with fewer it is no attack."""
    batch: int = 50
    """Few images at a time where each takes long, so that little is lost by an interruption."""

    def definition(self, budget: Budget, num_classes: int, batch: int) -> str:
        return self.words.format(queries=budget.queries, version=version_for(num_classes), batch=batch)


def _together(search: Callable[..., Tensor]) -> Callable[[float, int, Draws], Attack]:
    return lambda epsilon, queries, draws: partial(search, epsilon=epsilon, queries=queries, generator=draws.together)


def _one_by_one(search: Callable[..., Tensor]) -> Callable[[float, int, Draws], Attack]:
    def make(epsilon: float, queries: int, draws: Draws) -> Attack:
        def attack(model: Model, images: Tensor, labels: Tensor) -> Tensor:
            random = draws.of_each.next(len(images))
            return search(model, images, labels, epsilon=epsilon, queries=queries, random=random)

        return attack

    return make


def _feature_matching(epsilon: float, queries: int, draws: Draws) -> Attack:
    def attack(model: Model, images: Tensor, labels: Tensor) -> Tensor:
        start = torch.empty(images.shape).uniform_(-epsilon, epsilon, generator=draws.together)
        size = epsilon / PGD100.divisor
        return feature_matching(
            model, images, labels, guides=images, epsilon=epsilon, step_size=size, steps=PGD100.steps, start=start
        )

    return attack


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
SEARCHES: Mapping[str, Search] = {
    "feature_matching": Search(
        _feature_matching,
        f"{UNTIL_WRONG}features of another class nearby among {{batch}} images: 100 steps of epsilon/10, random start",
        batch=250,
    ),
    "square": Search(_one_by_one(square), "Square, {queries} queries", queries=1000, least=2, batch=100),
    "nattack": Search(
        _together(nattack), f"NAttack, {{queries}} queries, {AT_A_TIME}", queries=40_000, least=NATTACK_QUERIES, batch=5
    ),
    "hop_skip_jump": Search(
        _together(hop_skip_jump),
        "HopSkipJump, labels only, {queries} queries, starts among {batch} images",
        queries=10_000,
        least=HOP_SKIP_JUMP_QUERIES,
        batch=25,
    ),
    "random_noise": Search(
        _one_by_one(random_noise),
        "the first of {queries} random corners that breaks the image",
        queries=10_000,
        least=2,
    ),
    "ti_fgsm": Search(
        lambda epsilon, queries, draws: partial(ti_fgsm, epsilon=epsilon), f"TI-FGSM, 7x7 kernel, {TRANSFER_STEPS}"
    ),
    "di_fgsm": Search(
        lambda epsilon, queries, draws: partial(di_fgsm, epsilon=epsilon, generator=draws.together),
        f"DI-FGSM, {TRANSFER_STEPS}, {AT_A_TIME}",
    ),
    "autoattack": Search(
        lambda epsilon, queries, draws: partial(autoattack, epsilon=epsilon, seed=draws.together.initial_seed()),
        f"AutoAttack, {{version}}, {AT_A_TIME}",
        batch=25,
    ),
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
