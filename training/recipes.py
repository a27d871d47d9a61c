"""Training recipes as data: every choice of a run that is not the network or the data set."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from pydantic import ConfigDict, with_config

from training.feature_losses import SeparationTarget
from training.objectives import OBJECTIVES, Objective, ObjectiveName

RecipeName = Literal["paper", "strong", "fast"]
Augmentation = Literal["none", "crop_flip", "idbh_weak", "cutmix"]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Learning rates are per step, epochs count from 1, epsilon is in [0, 1] pixels."""

    epochs: int
    attack: Literal["pgd", "n_fgsm"]
    objective: ObjectiveName = "at"
    beta: float | None = None
    """Weight of the objective's second term; None for the objective's own (TRADES 6, MART 5, ALP 0.5, S2O 0.1)."""
    sigma: float = 0.25
    """Standard deviation of the noise of the objective `gaussian`, in [0, 1] pixels."""
    epsilon: float = 8 / 255
    pgd_steps: int = 10
    """Used by the attack `pgd` only."""
    step_share: float = 1 / 4
    """Size of a PGD step as a share of epsilon."""
    friendly: int | None = None
    """FAT: PGD steps after an image is misclassified; from 0, this many at the end of the run. None: all steps."""
    curriculum: int | None = None
    """CAT's basic curriculum: from one PGD step, one more after so many epochs without a better accuracy under them."""
    batch_size: int = 128
    """Images per step, over all processes together."""
    learning_rate: float = 0.1
    """The rate of the first epoch, or the peak rate of `one_cycle`."""
    schedule: Literal["step", "piecewise_linear", "cosine", "one_cycle"] = "step"
    drops: tuple[float, ...] = (0.75, 0.9)
    """Shares of the epochs from which the rate is (`step`) or begins to fall to be (`piecewise_linear`) a tenth."""
    warmup: float = 0.25
    """Share of the run in which the rate rises to its peak, for the schedule `one_cycle`."""
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    gradient_clip: float | None = None
    """Largest norm of the gradient of all parameters together."""
    ema_decay: float | None = None
    """Per-step decay of the averaged weights that are validated and kept; None keeps the weights themselves."""
    awp: float | None = None
    """AWP: size of the weight perturbation relative to the weights; None for none."""
    awp_after: float = 0.0
    """Share of the epochs, at the start, without AWP."""
    label_smoothing: float = 0.0
    lambda_sep: float = 1.0
    lambda_rec: float = 1.0
    separation_target: SeparationTarget = "mispredicted"
    """What the non-robust feature is to tell (Table A5)."""
    lambda_probe: float = 2.0
    """Weight of the probes of CAS and CIFS (their beta), in the loss and in the attack."""
    augmentation: Augmentation = "crop_flip"
    padding: int = 4
    """Pixels of zero padding for the random crop at full resolution."""
    extra_fraction: float = 0.0
    """Share of each batch that is drawn from extra, usually generated, data."""
    small_share: float = 0.0
    """Share of the epochs, at the start, that train on images scaled by `small_scale`."""
    small_scale: float = 1.0
    natural_share: float = 0.0
    """Share of the epochs, at the start, that train on clean images: features for three fifths of the cost."""
    held_out: int | None = None
    """Training images kept for validation and calibration; None for 2,500, or a tenth of the data if that is less."""
    validation_images: int = 2500
    """Held-out images that are attacked after each epoch."""
    patience: int | None = None
    """Epochs without a better validation accuracy after which the run ends; None for never."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that make no sense, such as a rate that falls below 0."""
        for name in ("epochs", "pgd_steps", "batch_size", "curriculum", "validation_images", "patience"):
            self._check(name, lambda value: value >= 1, "1 or more")
        for name in ("friendly", "padding", "beta", "weight_decay", "lambda_sep", "lambda_rec", "lambda_probe"):
            self._check(name, lambda value: value >= 0, "0 or more")
        shares = ("natural_share", "small_share", "awp_after", "extra_fraction", "label_smoothing")
        for name in (*shares, "momentum", "ema_decay"):
            self._check(name, lambda value: 0 <= value < 1, "0 or more and less than 1")
        for name in ("learning_rate", "sigma", "awp", "gradient_clip"):
            self._check(name, lambda value: value > 0, "above 0")
        self._check("warmup", lambda value: 0 < value < 1, "above 0 and less than 1 (of the run)")
        self._check("small_scale", lambda value: 0 < value <= 1, "above 0 and at most 1 (of the full size)")
        self._check("epsilon", lambda value: 0 < value <= 1, "above 0 and at most 1 ([0, 1] pixels)")
        self._check("step_share", lambda value: 0 < value <= 1, "above 0 and at most 1 (of epsilon)")
        self._check("drops", _is_rising, "rising shares of the epochs, each above 0 and less than 1")
        if self.nesterov and self.momentum == 0:
            raise ValueError("momentum is 0 with nesterov; expected above 0. Or switch it off by --no-nesterov")
        if self.attack == "n_fgsm" and (self.friendly is not None or self.curriculum is not None):
            raise ValueError(
                f"attack is n_fgsm, of one step, with friendly {self.friendly} and curriculum {self.curriculum}, which "
                "choose how many steps are taken; expected the attack pgd, or neither"
            )

    def _check(self, name: str, holds: Callable[[Any], bool], rule: str) -> None:
        value = getattr(self, name)
        if value is not None and not holds(value):
            raise ValueError(f"{name} is {value}; expected {rule}")

    @property
    def step_size(self) -> float:
        """Of a PGD step, in [0, 1] pixels."""
        return self.epsilon * self.step_share

    def scale(self, epoch: int) -> float:
        """Image scale in the given epoch; 1 in the last."""
        return self.small_scale if epoch <= self.small_share * self.epochs else 1.0

    def is_natural(self, epoch: int) -> bool:
        """Whether the given epoch trains on clean images, whatever the objective."""
        return epoch <= self.natural_share * self.epochs

    def objective_in(self, epoch: int) -> Objective:
        return OBJECTIVES["natural" if self.is_natural(epoch) else self.objective]

    def friendly_steps(self, epoch: int) -> int | None:
        """FAT's tau in the given epoch: 0, 1, ... `friendly`, each for the same share of the run."""
        return None if self.friendly is None else (self.friendly + 1) * (epoch - 1) // self.epochs

    def has_awp(self, epoch: int) -> bool:
        return self.awp is not None and epoch > self.awp_after * self.epochs


def _is_rising(drops: tuple[float, ...]) -> bool:
    return all(earlier < later for earlier, later in pairwise((0.0, *drops, 1.0)))


RECIPES: dict[RecipeName, Recipe] = {
    # section 4.1; the rate drops at the start of epochs 75 and 90, as in the published code
    "paper": Recipe(epochs=100, attack="pgd"),
    # what has helped since: reference in docs/training.md
    "strong": Recipe(
        epochs=100,
        attack="pgd",
        schedule="cosine",
        nesterov=True,
        ema_decay=0.999,
        awp=0.005,
        awp_after=0.1,
        augmentation="idbh_weak",
        validation_images=1000,
    ),
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

ACTIVATION_OF_RECIPE: dict[RecipeName, str] = {"paper": "relu", "strong": "silu", "fast": "relu"}
