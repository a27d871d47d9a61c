"""Adversarial training: one epoch as five visible acts, and the run that repeats, validates and keeps."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from training.accuracy import correct_under, frozen
from training.attacks import Attack, fgsm, n_fgsm, pgd
from training.checkpoint import RunConfig, RunFolder
from training.data import ImageData, augment, to_floats
from training.device import Device
from training.models import FSRNet
from training.objectives import adversarial_training
from training.recipes import Recipe
from training.state import State

OVERFITTING_GAP = 0.30
"""Catastrophic overfitting: training FGSM accuracy this far above validation PGD-10 accuracy."""

Progress = Callable[[int, int, Tensor], None]
"""Told after each step: the epoch, the images in the step, and the epoch's running means of `METRICS`."""

METRICS = ("loss", "classification_loss", "separation_loss", "recalibration_loss", "train_accuracy")


class TrainingStoppedError(RuntimeError):
    """Going on with this run is pointless; the message says why."""


def train(
    config: RunConfig,
    folder: RunFolder,
    data: ImageData,
    validation: ImageData,
    device: Device,
    *,
    progress: Progress,
) -> None:
    """Run `config`, or go on with it where `folder` holds a state; leaves weights and history in `folder`.

    Raises TrainingStoppedError when the loss is no longer finite, or single-step training overfits catastrophically.
    """
    recipe = config.recipe
    torch.manual_seed(config.seed)
    state = State.create(config, device)
    done = state.restore(folder)
    if done == 0 and config.start is not None:
        state.start_from(RunFolder(Path(config.start)).load_model("best"))
    for record in folder.history()[-1:]:
        stop_if_overfitted(record, recipe)
    scale, scaled = 1.0, data
    for epoch in range(done + 1, recipe.epochs + 1):
        started = time.monotonic()
        if recipe.scale(epoch) != scale:
            scale = recipe.scale(epoch)
            scaled = data.scaled(scale)
        metrics = train_epoch(state, scaled, recipe, epoch, device, progress)
        if not math.isfinite(metrics["loss"]):
            raise TrainingStoppedError(
                f"epoch {epoch}: the loss is {metrics['loss']}; nothing of this epoch was kept. "
                "Go on from the last one with a lower learning rate, or look for bad images in the data"
            )
        metrics |= validate(state.averaged, data, validation, recipe, device)
        metrics["epoch_seconds"] = time.monotonic() - started
        accuracy = metrics["validation_pgd10_accuracy"]
        if scale == 1 and accuracy > state.best:
            state.best = accuracy
            folder.save_weights("best", state.averaged.state_dict())
        folder.save_weights("last", state.averaged.state_dict())
        folder.append_history({"epoch": epoch, **metrics})
        folder.save_resume(state.tensors(), epoch)
        stop_if_overfitted({"epoch": epoch, **metrics}, recipe)


def stop_if_overfitted(record: Mapping[str, float], recipe: Recipe) -> None:
    """Raise TrainingStoppedError when training FGSM accuracy exceeds validation PGD-10 accuracy by 30 points.

    Only single-step training overfits like this; for PGD the gap is the ordinary one between training and validation.
    """
    gap = record["train_fgsm_accuracy"] - record["validation_pgd10_accuracy"]
    if recipe.attack == "n_fgsm" and not recipe.is_natural(int(record["epoch"])) and gap > OVERFITTING_GAP:
        raise TrainingStoppedError(
            f"epoch {record['epoch']}: FGSM accuracy on training images is {gap:.0%} above PGD-10 accuracy on "
            f"validation images; more than {OVERFITTING_GAP:.0%} means catastrophic overfitting. "
            "Use --recipe paper or a smaller --epsilon"
        )


def train_epoch(
    state: State, data: ImageData, recipe: Recipe, epoch: int, device: Device, progress: Progress
) -> dict[str, float]:
    """One pass over the training images; returns the means of `METRICS` over it."""
    model = state.model
    attack = training_attack(recipe, epoch)
    padding = round(recipe.padding * recipe.scale(epoch))
    steps = len(data) // recipe.batch_size
    totals = torch.zeros(len(METRICS), device=device.torch_device)
    for step, (pixels, labels) in enumerate(shuffled_batches(data, recipe.batch_size)):
        images = device.place_images(to_floats(augment(pixels, padding=padding)))
        labels = labels.to(device.torch_device)

        with device.autocast():
            with frozen(model):
                adversarial = attack(model, images, labels)
            heads = model.heads(adversarial)
            losses = adversarial_training(heads, labels, lambda_sep=recipe.lambda_sep, lambda_rec=recipe.lambda_rec)
        state.step(losses.total, (epoch - 1) * steps + step, learning_rate(recipe, epoch, step / steps), recipe)

        accuracy = (heads.logits.argmax(dim=1) == labels).float().mean()
        totals += torch.stack([*(loss.detach() for loss in losses), accuracy])
        progress(epoch, len(labels), totals / (step + 1))
    return dict(zip(METRICS, (totals / steps).tolist(), strict=True))


def validate(model: FSRNet, data: ImageData, validation: ImageData, recipe: Recipe, device: Device) -> dict[str, float]:
    """Clean and PGD-10 accuracy on validation images, FGSM accuracy on as many training images; all fp32."""
    train_part, validation_part = (part.spread(recipe.validation_images) for part in (data, validation))
    pgd10 = partial(pgd, epsilon=recipe.epsilon, step_size=recipe.epsilon / 4, steps=10)
    fgsm_once = partial(fgsm, epsilon=recipe.epsilon)

    def accuracy(attack: Attack | None, part: ImageData) -> float:
        return float(correct_under(attack, model, part, device).double().mean())

    return {
        "validation_clean_accuracy": accuracy(None, validation_part),
        "validation_pgd10_accuracy": accuracy(pgd10, validation_part),
        "train_fgsm_accuracy": accuracy(fgsm_once, train_part),
    }


def training_attack(recipe: Recipe, epoch: int) -> Attack:
    """The attack that a recipe trains on in the given epoch."""
    if recipe.is_natural(epoch):
        return lambda model, images, labels: images
    if recipe.attack == "n_fgsm":
        return partial(n_fgsm, epsilon=recipe.epsilon)
    return partial(pgd, epsilon=recipe.epsilon, step_size=recipe.epsilon / 4, steps=recipe.pgd_steps)


def learning_rate(recipe: Recipe, epoch: int, part: float) -> float:
    """The rate when `part` (0..1) of the epoch (counted from 1) is done."""
    if recipe.schedule == "step":
        return recipe.learning_rate * 0.1 ** sum(epoch >= drop * recipe.epochs for drop in recipe.drops)
    done = (epoch - 1 + part) / recipe.epochs
    return recipe.learning_rate * min(done / recipe.warmup, (1 - done) / (1 - recipe.warmup))


def shuffled_batches(data: ImageData, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pixels and labels of full batches in random order; the remainder sits out this epoch."""
    order = torch.randperm(len(data))
    for indices in order[: len(data) // size * size].split(size):
        yield data.pixels[indices], data.labels[indices]
