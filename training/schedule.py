"""What changes from epoch to epoch: the learning rate, the strength of the attack, and when a run ends.

All are pure functions of the recipe and the history so far, so that a resumed run needs no state for them.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from training.recipes import Recipe

History = Sequence[Mapping[str, Any]]


def learning_rate(recipe: Recipe, epoch: int, part: float) -> float:
    """The rate when `part` (0..1) of the epoch (counted from 1) is done."""
    done = (epoch - 1 + part) / recipe.epochs
    if recipe.schedule == "step":
        return recipe.learning_rate * 0.1 ** sum(epoch >= drop * recipe.epochs for drop in recipe.drops)
    if recipe.schedule == "piecewise_linear":
        return recipe.learning_rate * _piecewise_linear(done, recipe.drops)
    if recipe.schedule == "cosine":
        return recipe.learning_rate * (1 + math.cos(math.pi * done)) / 2
    return recipe.learning_rate * min(done / recipe.warmup, (1 - done) / (1 - recipe.warmup))


def _piecewise_linear(done: float, drops: Sequence[float]) -> float:
    """1 until the first drop, then falling in straight lines to a tenth at the next, the last one at the end."""
    knots = [*drops, 1.0]
    factor = 1.0
    for start, end in pairwise(knots):
        if done > start:
            factor *= 1 - 0.9 * min((done - start) / (end - start), 1)
    return factor


def attack_steps(recipe: Recipe, history: History) -> int:
    """PGD steps of the next epoch: the recipe's, or those that CAT has come to.

    CAT's basic curriculum (Cai et al., IJCAI 2018, arXiv 1805.04807): from one step, one more whenever the validation
    accuracy under the present number has not risen for `curriculum` epochs, up to the recipe's. Of what makes CAT
    itself there are no batches of several strengths, no quantization, no return to the best weights, no longer steps.
    """
    if recipe.curriculum is None:
        return recipe.pgd_steps
    steps = 1
    accuracies: list[float] = []
    for record in history:
        if recipe.is_natural(record["epoch"]):
            continue
        accuracies.append(record["validation_curriculum_accuracy"])
        if is_stale(accuracies, recipe.curriculum):
            steps, accuracies = min(steps + 1, recipe.pgd_steps), []
    return steps


def has_ended(recipe: Recipe, history: History) -> bool:
    """Whether the run is over: all epochs done, or no better validation accuracy for `patience` epochs.

    Epochs of smaller or of clean images come before those that count.
    """
    if len(history) >= recipe.epochs:
        return True
    judge = judged_by(recipe)
    judged = [
        record[judge]
        for record in history
        if recipe.scale(record["epoch"]) == 1 and not recipe.is_natural(record["epoch"])
    ]
    return recipe.patience is not None and is_stale(judged, recipe.patience)


def judged_by(recipe: Recipe) -> str:
    """The measure by which the best weights are chosen: accuracy on images like those that it trains on last."""
    images = recipe.objective_in(recipe.epochs).images
    names = {"attacked": "validation_pgd10_accuracy", "noisy": "validation_noisy_accuracy"}
    return names.get(images, "validation_clean_accuracy")


def is_stale(values: Sequence[float], epochs: int) -> bool:
    """Whether none of the last `epochs` values is above all before them."""
    return len(values) > epochs and max(values[-epochs:]) <= max(values[:-epochs])
