"""The attacks of an evaluation that have randomness of their own, or ask for answers only, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import torch
from torch import Tensor

from training.attacks import (
    Attack,
    Model,
    autoattack,
    di_fgsm,
    hop_skip_jump,
    nattack,
    random_noise,
    square,
    ti_fgsm,
)
from training.attacks.adaptive import feature_matching
from training.attacks.autoattack import version_for
from training.attacks.hop_skip_jump import LEAST_QUERIES as HOP_SKIP_JUMP_QUERIES
from training.attacks.nattack import LEAST_QUERIES as NATTACK_QUERIES
from training.attacks.transfer import DIVISOR, STEPS
from training.evaluation.protocol import GRADIENT_ATTACKS, Budget, ImageStreams

PGD100 = GRADIENT_ATTACKS["pgd100"]
UNTIL_WRONG = "until the answer is wrong, "
AT_A_TIME = "{batch} images at a time"
TRANSFER_STEPS = f"{STEPS} steps of epsilon/{DIVISOR}, no random start"


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
