"""How good the weights of an epoch are, and whether going on makes sense."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from training.accuracy import correct_under, frozen
from training.attacks import Attack, Model, fgsm, pgd
from training.data import ImageData
from training.device import Device
from training.models import FSRNet
from training.processes import Processes
from training.recipes import Recipe

OVERFITTING_GAP = 0.30
"""Catastrophic overfitting: FGSM accuracy this far above PGD-10 accuracy on the same training images."""


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

    With the attack `n_fgsm` also PGD-10 accuracy on those training images, with CAT the accuracy under the training
    attack's present strength, with noise for smoothing the accuracy on validation images under such noise.
    """
    train_part, validation_part = (part.spread(recipe.validation_images) for part in (data, validation))
    sized = partial(pgd, epsilon=recipe.epsilon, step_size=recipe.step_size)
    pgd10 = partial(sized, steps=10)
    measured: dict[str, tuple[Attack | None, ImageData]] = {
        "validation_clean_accuracy": (None, validation_part),
        "validation_pgd10_accuracy": (pgd10, validation_part),
        "train_fgsm_accuracy": (partial(fgsm, epsilon=recipe.epsilon), train_part),
    }
    if recipe.attack == "n_fgsm":
        measured["train_pgd10_accuracy"] = (pgd10, train_part)
    if recipe.curriculum is not None:
        measured["validation_curriculum_accuracy"] = (partial(sized, steps=attack_steps), validation_part)

    if recipe.objective_in(recipe.epochs).images == "noisy":
        noise = torch.Generator().manual_seed(0)  # the same in each epoch
        measured["validation_noisy_accuracy"] = (partial(_with_noise, recipe.sigma, noise), validation_part)

    def accuracy(attack: Attack | None, part: ImageData) -> float:
        share = part.subset(processes.share(torch.arange(len(part))))
        correct = correct_under(attack, model, share, device).double().sum().to(device.torch_device)
        return float(processes.sum(correct)) / len(part)

    with frozen(model):
        return {name: accuracy(*given) for name, given in measured.items()}


def _with_noise(sigma: float, generator: torch.Generator, model: Model, images: Tensor, labels: Tensor) -> Tensor:
    return images + sigma * torch.randn(images.shape, generator=generator).to(images.device)


def stop_if_overfitted(record: Mapping[str, float], recipe: Recipe) -> None:
    """Raise TrainingStoppedError when FGSM accuracy exceeds PGD-10 accuracy by 30 points, both on training images.

    Only single-step training overfits like this (Wong et al., ICLR 2020, arXiv 2001.03994). Accuracy on validation
    images has no part in it: it may be low for the ordinary reason.
    """
    epoch = int(record["epoch"])
    is_single_step = recipe.attack == "n_fgsm" and recipe.objective_in(epoch).images == "attacked"
    if not is_single_step or "train_pgd10_accuracy" not in record:  # begun before this was measured
        return
    gap = record["train_fgsm_accuracy"] - record["train_pgd10_accuracy"]
    if gap > OVERFITTING_GAP:
        raise TrainingStoppedError(
            f"epoch {epoch}: on training images FGSM accuracy is {gap:.0%} above PGD-10 accuracy; "
            f"more than {OVERFITTING_GAP:.0%} means catastrophic overfitting. "
            "Train anew, into another --out, with --recipe paper or a smaller --epsilon"
        )
