"""The choices of a recipe as options of the command; what is not given stays as the recipe has it."""

from dataclasses import dataclass, fields, replace
from typing import Literal

from training.feature_losses import SeparationTarget
from training.objectives import ObjectiveName
from training.recipes import Augmentation, Recipe


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """Every field of `Recipe`, optional."""

    epochs: int | None = None
    attack: Literal["pgd", "n_fgsm"] | None = None
    objective: ObjectiveName | None = None
    beta: float | None = None
    """Weight of the objective's second term; None for the objective's own (TRADES 6, MART 5, ALP 0.5, S2O 0.1)."""
    sigma: float | None = None
    """Standard deviation of the noise of the objective `gaussian`, in [0, 1] pixels."""
    epsilon: float | None = None
    pgd_steps: int | None = None
    """Used by the attack `pgd` only."""
    step_share: float | None = None
    """Size of a PGD step as a share of epsilon."""
    friendly: int | None = None
    """FAT: PGD steps after an image is misclassified; from 0, this many at the end of the run. None: all steps."""
    curriculum: int | None = None
    """CAT: from one PGD step, one more after so many epochs without a better accuracy under the present strength."""
    batch_size: int | None = None
    """Images per step, over all processes together."""
    learning_rate: float | None = None
    """The rate of the first epoch, or the peak rate of `one_cycle`."""
    schedule: Literal["step", "piecewise_linear", "cosine", "one_cycle"] | None = None
    drops: tuple[float, ...] | None = None
    """Shares of the epochs from which the rate is (`step`) or begins to fall to be (`piecewise_linear`) a tenth."""
    warmup: float | None = None
    """Share of the run in which the rate rises to its peak, for the schedule `one_cycle`."""
    momentum: float | None = None
    nesterov: bool | None = None
    weight_decay: float | None = None
    gradient_clip: float | None = None
    """Largest norm of the gradient of all parameters together."""
    ema_decay: float | None = None
    """Per-step decay of the averaged weights that are validated and kept; None keeps the weights themselves."""
    awp: float | None = None
    """AWP: size of the weight perturbation relative to the weights; None for none."""
    awp_after: float | None = None
    """Share of the epochs, at the start, without AWP."""
    label_smoothing: float | None = None
    lambda_sep: float | None = None
    lambda_rec: float | None = None
    separation_target: SeparationTarget | None = None
    """What the non-robust feature is to tell (Table A5)."""
    lambda_probe: float | None = None
    """Weight of the probes of CAS and CIFS (their beta), in the loss and in the attack."""
    augmentation: Augmentation | None = None
    padding: int | None = None
    """Pixels of zero padding for the random crop at full resolution."""
    extra_fraction: float | None = None
    """Share of each batch that is drawn from extra, usually generated, data."""
    small_share: float | None = None
    """Share of the epochs, at the start, that train on images scaled by `small_scale`."""
    small_scale: float | None = None
    natural_share: float | None = None
    """Share of the epochs, at the start, that train on clean images: features for three fifths of the cost."""
    held_out: int | None = None
    """Training images kept for validation and calibration."""
    validation_images: int | None = None
    """Held-out images that are attacked after each epoch."""
    patience: int | None = None
    """Epochs without a better validation accuracy after which the run ends; None for never."""

    def change(self, recipe: Recipe) -> Recipe:
        """The recipe with the options that are given. Raises ValueError for a value that makes no sense."""
        given = {field.name: getattr(self, field.name) for field in fields(RecipeOptions)}
        return replace(recipe, **{name: value for name, value in given.items() if value is not None})
