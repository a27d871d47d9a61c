"""How good the weights of an epoch are, and whether going on makes sense."""

from collections.abc import Mapping
from functools import partial

import torch

from training.accuracy import correct_under, frozen
from training.attacks import Attack, fgsm, pgd
from training.data import ImageData
from training.device import Device
from training.models import FSRNet
from training.processes import Processes
from training.recipes import Recipe

OVERFITTING_GAP = 0.30
"""Catastrophic overfitting: training FGSM accuracy this far above validation PGD-10 accuracy."""


class TrainingStoppedError(RuntimeError):
    """Going on with this run is pointless; the message says why."""


def validate(
    model: FSRNet,
    data: ImageData,
    validation: ImageData,
    recipe: Recipe,
    attack_steps: int,
    device: Device,
    processes: Processes,
) -> dict[str, float]:
    """Clean and PGD-10 accuracy on validation images, FGSM accuracy on as many training images; all fp32.

    With CAT also the accuracy under the training attack's present strength.
    """
    train_part, validation_part = (part.spread(recipe.validation_images) for part in (data, validation))
    sized = partial(pgd, epsilon=recipe.epsilon, step_size=recipe.step_size)
    measured: dict[str, tuple[Attack | None, ImageData]] = {
        "validation_clean_accuracy": (None, validation_part),
        "validation_pgd10_accuracy": (partial(sized, steps=10), validation_part),
        "train_fgsm_accuracy": (partial(fgsm, epsilon=recipe.epsilon), train_part),
    }
    if recipe.curriculum is not None:
        measured["validation_curriculum_accuracy"] = (partial(sized, steps=attack_steps), validation_part)

    def accuracy(attack: Attack | None, part: ImageData) -> float:
        share = part.subset(processes.share(torch.arange(len(part))))
        correct = correct_under(attack, model, share, device).double().sum().to(device.torch_device)
        return float(processes.sum(correct)) / len(part)

    with frozen(model):
        return {name: accuracy(*given) for name, given in measured.items()}


def stop_if_overfitted(record: Mapping[str, float], recipe: Recipe) -> None:
    """Raise TrainingStoppedError when training FGSM accuracy exceeds validation PGD-10 accuracy by 30 points.

    Only single-step training overfits like this; for PGD the gap is the ordinary one between training and validation.
    """
    epoch, gap = int(record["epoch"]), record["train_fgsm_accuracy"] - record["validation_pgd10_accuracy"]
    is_single_step = recipe.attack == "n_fgsm" and recipe.objective_in(epoch).images == "attacked"
    if is_single_step and gap > OVERFITTING_GAP:
        raise TrainingStoppedError(
            f"epoch {epoch}: FGSM accuracy on training images is {gap:.0%} above PGD-10 accuracy on "
            f"validation images; more than {OVERFITTING_GAP:.0%} means catastrophic overfitting. "
            "Use --recipe paper or a smaller --epsilon"
        )
