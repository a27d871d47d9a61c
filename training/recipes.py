"""Training recipes as data: every choice of a run that is not the network or the data set."""

from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict, with_config

RecipeName = Literal["paper", "fast"]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Learning rates are per step, epochs count from 1, epsilon is in [0, 1] pixels."""

    epochs: int
    attack: Literal["pgd", "n_fgsm"]
    epsilon: float = 8 / 255
    pgd_steps: int = 10
    """Steps of epsilon / 4; used by the attack `pgd` only."""
    batch_size: int = 128
    learning_rate: float = 0.1
    """The rate of the first epoch (`step`) or the peak rate (`one_cycle`)."""
    schedule: Literal["step", "one_cycle"] = "step"
    drops: tuple[float, ...] = (0.75, 0.9)
    """Shares of the epochs from which the rate is divided by ten, for the schedule `step`."""
    warmup: float = 0.25
    """Share of the run in which the rate rises to its peak, for the schedule `one_cycle`."""
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    gradient_clip: float | None = None
    """Largest norm of the gradient of all parameters together."""
    ema_decay: float | None = None
    """Per-step decay of the averaged weights that are validated and kept; None keeps the weights themselves."""
    lambda_sep: float = 1.0
    lambda_rec: float = 1.0
    padding: int = 4
    """Pixels of zero padding for the random crop at full resolution."""
    small_share: float = 0.0
    """Share of the epochs, at the start, that train on images scaled by `small_scale`."""
    small_scale: float = 1.0
    natural_share: float = 0.0
    """Share of the epochs, at the start, that train on clean images: features for three fifths of the cost."""
    held_out: int = 2500
    """Training images kept for validation and calibration."""
    validation_images: int = 2500
    """Held-out images that are attacked after each epoch."""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs is {self.epochs}; expected 1 or more")
        for name in ("natural_share", "small_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more and less than 1")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; expected above 0")
        if not 0 < self.epsilon <= 1:
            raise ValueError(f"epsilon is {self.epsilon}; expected above 0 and at most 1 ([0, 1] pixels)")

    def scale(self, epoch: int) -> float:
        """Image scale in the given epoch; 1 in the last."""
        return self.small_scale if epoch <= self.small_share * self.epochs else 1.0

    def is_natural(self, epoch: int) -> bool:
        """Whether the given epoch trains on clean images."""
        return epoch <= self.natural_share * self.epochs


RECIPES: dict[RecipeName, Recipe] = {
    # section 4.1; the rate drops at the start of epochs 75 and 90, as in the published code
    "paper": Recipe(epochs=100, attack="pgd"),
    "fast": Recipe(
        epochs=15,
        attack="n_fgsm",
        learning_rate=0.2,
        schedule="one_cycle",
        nesterov=True,
        gradient_clip=5.0,
        ema_decay=0.995,
        small_share=0.6,
        small_scale=0.75,
        natural_share=0.2,
        validation_images=500,
    ),
}
