"""The attacks of an evaluation by name: those with gradients as data, and their random starts.

Free of torch: checkpoints and deployed files are attacked by the same protocol from the same starts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

GradientAttackName = Literal["fgsm", "pgd10", "pgd20", "pgd100", "pgd1000", "cw"]
AttackName = GradientAttackName | Literal["square"]
"""Attacks that need no more than what a model version has: its logits, and gradients of its attack graph."""
LossName = Literal["cross_entropy", "margin"]

EPSILON = 8 / 255
NEGLIGIBLE = 1e-6
"""Difference between an epsilon and what one types for it."""


@dataclass(frozen=True)
class Budget:
    """How hard an attack tries, where its name leaves that open."""

    queries: int = 1000
    """Of attacks that see answers only, per image."""
    restarts: int = 1
    """Of gradient attacks with random starts: an image is wrong if any of them breaks it."""
    random_start: bool = True
    """False: gradient attacks begin at the image itself, as in the paper's published code."""


@dataclass(frozen=True)
class GradientAttack:
    """`steps` of epsilon / `divisor` along the sign of the loss gradient, within epsilon of the image."""

    loss: LossName
    steps: int
    divisor: int
    random_start: bool = True

    def definition(self, budget: Budget) -> str:
        loss = "cross-entropy" if self.loss == "cross_entropy" else "margin loss, confidence 50"
        steps = f"{self.steps} steps of epsilon/{self.divisor}" if self.steps > 1 else "one step of epsilon"
        if not (self.random_start and budget.random_start):
            return f"{loss}, {steps}, no random start"
        return f"{loss}, {steps}, {'random start' if budget.restarts == 1 else f'{budget.restarts} random starts'}"


GRADIENT_ATTACKS: dict[str, GradientAttack] = {
    "fgsm": GradientAttack("cross_entropy", steps=1, divisor=1, random_start=False),
    "pgd10": GradientAttack("cross_entropy", steps=10, divisor=4),
    "pgd20": GradientAttack("cross_entropy", steps=20, divisor=10),
    "pgd100": GradientAttack("cross_entropy", steps=100, divisor=10),
    "pgd1000": GradientAttack("cross_entropy", steps=1000, divisor=10),
    "cw": GradientAttack("margin", steps=30, divisor=10),
}

CLEAN_UPLOADS = ("clean_png_upload", "clean_jpeg_upload")
"""What accuracies on larger pictures, encoded, decoded and resized as the server does it, are called."""


def attacked_uploads(attack: str) -> tuple[str, str, str]:
    """The same under attack: on the decoded pixels, and in the pixels of uploads as PNG and as JPEG."""
    return f"{attack}_decoded_upload", f"{attack}_png_upload", f"{attack}_jpeg_upload"


def is_bounded_by(epsilon: float, measured: float) -> bool:
    """Whether figures with the bound `measured` belong to `epsilon`, as those without attack (0) always do."""
    return measured == 0 or abs(measured - epsilon) < NEGLIGIBLE


def at_bound(attack: str, measured: float, epsilon: float = EPSILON) -> str:
    """The attack's name, with its bound in 255ths where that is another than `epsilon`: pgd20@16/255."""
    return attack if is_bounded_by(epsilon, measured) else with_bound(attack, measured)


def with_bound(attack: str, measured: float) -> str:
    """The attack's name with its bound in 255ths, whatever that is: pgd20@8/255."""
    return f"{attack}@{measured * 255:.4g}/255"


def definition_of(attack: AttackName, budget: Budget) -> str:
    """The attack in words, for reports."""
    return f"Square, {budget.queries} queries" if attack == "square" else GRADIENT_ATTACKS[attack].definition(budget)


class RandomStarts:
    """U(-epsilon, epsilon) noise, image after image from one stream: it does not depend on the batch size."""

    def __init__(self, seed: int | Sequence[int], *, image_values: int, first: int = 0) -> None:
        """`first` is the number of the first image to come, of `image_values` pixel values each."""
        bits = np.random.PCG64(seed)
        bits.advance(first * image_values)
        self._generator = np.random.Generator(bits)

    def next(self, shape: tuple[int, ...], epsilon: float) -> npt.NDArray[np.float32]:
        """Noise for the next images, of shape (n, 3, h, w)."""
        return self._generator.uniform(-epsilon, epsilon, shape).astype(np.float32)


class ImageStreams:
    """A generator for each image, in order: what it draws depends on the image's number alone."""

    def __init__(self, seed: int, *, first: int = 0) -> None:
        """`first` is the number of the first image to come."""
        self._seed, self._next = seed, first

    def next(self, count: int) -> list[np.random.Generator]:
        """Those of the next images."""
        numbers = range(self._next, self._next + count)
        self._next += count
        return [np.random.default_rng((self._seed, number)) for number in numbers]
