"""Adversarial training: one epoch as five visible acts, and the run that repeats, validates and keeps."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.accuracy import frozen
from training.augmentation import augment
from training.awp import perturbed_weights
from training.batches import Data, shuffled_batches
from training.checkpoint import CheckpointError, RunConfig, RunFolder
from training.craft import craft
from training.device import Device
from training.environment import environment
from training.processes import Processes
from training.recipes import Recipe
from training.schedule import attack_steps, has_ended, judged_by, learning_rate
from training.state import State
from training.trainee import Outcome
from training.validation import TrainingStoppedError, stop_if_overfitted, validate

Progress = Callable[[int, int, Mapping[str, Tensor]], None]
"""Told after each step: the epoch, the images in the step, and the epoch's running means by name."""


def train(
    config: RunConfig,
    folder: RunFolder,
    data: Data,
    device: Device,
    processes: Processes,
    *,
    compiled: bool = False,
    progress: Progress,
    record: Callable[[Mapping[str, Any]], None] = lambda values: None,
) -> None:
    """Run `config`, or go on with it where `folder` holds a state; leaves weights and history in `folder`.

    `compiled` runs the attack through torch.compile. `record` is told each line of the history. Raises
    TrainingStoppedError when the loss is no longer finite, or single-step training overfits catastrophically.
    """
    recipe = config.recipe
    torch.manual_seed(config.seed)
    state = State.create(config, device, processes)
    done = state.restore(folder)
    history = folder.history()[:done]
    if len(history) < done:
        raise CheckpointError(
            f"{folder.path} holds the state after epoch {done}, but a history of {len(history)}; expected "
            "history.jsonl with all of them, as the run wrote it"
        )
    if processes.is_first:
        folder.drop_history_after(done)
    if done == 0 and config.start is not None:
        state.start_from(RunFolder(Path(config.start)).load_model("best"))
    if compiled:
        state.model.compile(dynamic=False)
    for line in history[-1:]:
        stop_if_overfitted(line, recipe)
    if processes.is_first and not has_ended(recipe, history):
        folder.save_environment(environment(device, processes, compiled), len(history) + 1)
    scale, scaled = 0.0, data
    while not has_ended(recipe, history):
        epoch = len(history) + 1
        started = time.monotonic()
        torch.manual_seed(_seed(config.seed, epoch, processes.rank))
        if recipe.scale(epoch) != scale:
            scale = recipe.scale(epoch)
            scaled = data.scaled(scale, device)
        steps = attack_steps(recipe, history)
        order = torch.Generator().manual_seed(_seed(config.seed, epoch))
        with device.training():
            metrics = train_epoch(state, scaled, recipe, epoch, steps, order, device, processes, progress)
        if not math.isfinite(metrics["loss"]):
            start = f" and --start {folder.path} for its best weights" if state.best >= 0 else ""
            raise TrainingStoppedError(
                f"epoch {epoch}: the loss is {metrics['loss']}; nothing of this epoch was kept. Begin another run with "
                f"--learning-rate below {recipe.learning_rate}{start}, or look for bad images in the data"
            )
        trained = time.monotonic()
        for network in (state.averaged, state.model):  # what is kept and restored is the first process's
            processes.copy_from_first(network)
        metrics |= validate(state.averaged, data.training, data.validation, recipe, steps, device, processes)
        images = len(scaled.training) // recipe.batch_size * recipe.batch_size
        line = {
            "epoch": epoch,
            **metrics,
            "epoch_seconds": time.monotonic() - started,
            "train_images_per_second": images / (trained - started),
            "peak_memory_bytes": device.peak_memory_bytes(),
        }
        history.append(line)
        accuracy = metrics[judged_by(recipe)]
        is_best = scale == 1 and accuracy > state.best
        state.best = accuracy if is_best else state.best
        if processes.is_first:
            if is_best:
                folder.save_weights("best", state.averaged.state_dict())
            folder.save_weights("last", state.averaged.state_dict())
            folder.append_history(line)
            folder.save_resume(state.tensors(), epoch)
            record(line)
        processes.wait()
        stop_if_overfitted(line, recipe)


def train_epoch(
    state: State,
    data: Data,
    recipe: Recipe,
    epoch: int,
    attack_steps: int,
    order: torch.Generator,
    device: Device,
    processes: Processes,
    progress: Progress,
) -> dict[str, float]:
    """One pass over the training images in the given order; returns the means over it by name.

    Nothing in it waits for a GPU before the pass is over.
    """
    objective = recipe.objective_in(epoch)
    steps = len(data.training) // recipe.batch_size
    totals: dict[str, Tensor] = {}
    for step, (pixels, labels) in enumerate(shuffled_batches(data, recipe, order, processes)):
        pixels, labels = device.place(pixels), device.place(labels)
        augmented, target = augment(pixels, labels, len(data.training.classes), recipe, recipe.scale(epoch))
        images = device.place_images(augmented, state.model)

        with device.autocast(), frozen(state.model):
            crafted = craft(state.model, images, target, objective, recipe, epoch, attack_steps)

        given = (images, crafted, target, objective)
        with perturbation(state, given, recipe, epoch, device, processes):
            learned = outcome(state.parallel, given, device)
            state.learn(learned.loss)
        state.step((epoch - 1) * steps + step, learning_rate(recipe, epoch, step / steps), recipe)

        values = {f"{name}_loss": term for name, term in learned.terms.items()}
        values |= {"loss": learned.loss, "train_accuracy": (learned.logits.argmax(1) == target.labels).float().mean()}
        totals = {name: totals.get(name, 0) + value.detach().float() for name, value in values.items()}
        progress(epoch, recipe.batch_size, {name: total / (step + 1) for name, total in totals.items()})
    return {name: float(processes.mean(total)) / steps for name, total in totals.items()}


def outcome(trainee: nn.Module, given: tuple[Any, ...], device: Device) -> Outcome:
    """One forward pass of the network and its loss, in the device's format."""
    with device.autocast():
        found: Outcome = trainee(*given)
    return found


def perturbation(
    state: State, given: tuple[Any, ...], recipe: Recipe, epoch: int, device: Device, processes: Processes
) -> AbstractContextManager[None]:
    """AWP's weights where the recipe has AWP in this epoch."""
    if recipe.awp is None or not recipe.has_awp(epoch):
        return nullcontext()
    return perturbed_weights(
        state.model, recipe.awp, lambda: outcome(state.trainee, given, device).loss, processes.mean
    )


def _seed(seed: int, *key: int) -> int:
    """A seed of its own for every epoch's order, and its every process, so that a resumed run needs no random state."""
    sequence = np.random.SeedSequence(seed, spawn_key=key)
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
