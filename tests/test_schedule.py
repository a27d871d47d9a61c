"""What changes from epoch to epoch."""

import dataclasses

import pytest

from training.recipes import RECIPES
from training.schedule import attack_steps, has_ended, judged_by, learning_rate

PAPER = RECIPES["paper"]


def test_the_one_cycle_rate_rises_to_its_peak_and_falls_to_zero():
    recipe = dataclasses.replace(RECIPES["fast"], epochs=10, warmup=0.3)
    assert learning_rate(recipe, 1, 0.0) == 0
    assert learning_rate(recipe, 4, 0.0) == pytest.approx(recipe.learning_rate)
    assert learning_rate(recipe, 7, 0.5) == pytest.approx(recipe.learning_rate / 2)
    assert learning_rate(recipe, 10, 1.0) == 0


def test_the_cosine_rate_falls_from_its_peak_to_zero():
    recipe = dataclasses.replace(PAPER, epochs=10, schedule="cosine")
    assert [learning_rate(recipe, 1, 0.0), learning_rate(recipe, 6, 0.0)] == pytest.approx([0.1, 0.05])
    assert learning_rate(recipe, 10, 1.0) == pytest.approx(0)


def test_the_piecewise_linear_rate_meets_that_of_steps_at_each_next_knot():
    recipe = dataclasses.replace(PAPER, schedule="piecewise_linear")
    rates = [learning_rate(recipe, epoch, 0.0) for epoch in (1, 76, 91)] + [learning_rate(recipe, 100, 1.0)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001])
    assert learning_rate(recipe, 83, 0.5) == pytest.approx(0.1 * (1 - 0.9 * 0.5))


def history_of(*accuracies):
    """A history whose every validation accuracy is as given."""
    measures = [f"validation_{name}_accuracy" for name in ("curriculum", "pgd10", "clean")]
    return [{"epoch": epoch} | dict.fromkeys(measures, found) for epoch, found in enumerate(accuracies, start=1)]


def test_the_curriculum_adds_a_step_when_the_accuracy_under_the_present_one_stalls():
    recipe = dataclasses.replace(PAPER, curriculum=2, pgd_steps=3)
    history = history_of(0.1, 0.2, 0.2, 0.2, 0.15, 0.14, 0.15, 0.1, 0.1, 0.1)
    steps = [attack_steps(recipe, history[:epochs]) for epochs in range(len(history) + 1)]
    assert steps == [1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3]
    assert attack_steps(PAPER, history) == 10


def test_friendly_training_takes_more_steps_as_it_goes():
    recipe = dataclasses.replace(PAPER, epochs=8, friendly=3)
    assert [recipe.friendly_steps(epoch) for epoch in range(1, 9)] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert PAPER.friendly_steps(5) is None


def test_a_run_ends_after_its_epochs_or_when_patience_is_over():
    recipe = dataclasses.replace(PAPER, epochs=9, patience=2)
    history = history_of(0.1, 0.3, 0.2, 0.3)
    assert [has_ended(recipe, history[:epochs]) for epochs in range(5)] == [False, False, False, False, True]
    assert not has_ended(PAPER, history)
    assert has_ended(dataclasses.replace(PAPER, epochs=4), history)


def test_epochs_that_are_not_to_be_kept_try_no_ones_patience():
    shares = {"natural_share": 0.2, "small_share": 0.4, "small_scale": 0.75}
    recipe = dataclasses.replace(PAPER, epochs=10, patience=2, curriculum=2, **shares)
    history = history_of(0.5, 0.4, 0.3, 0.2, 0.1, 0.2, 0.1, 0.1)
    assert [has_ended(recipe, history[:epochs]) for epochs in (4, 7, 8)] == [False, False, True]
    assert [attack_steps(recipe, history[:epochs]) for epochs in (2, 4, 5)] == [1, 1, 2], "clean images need no step"


def test_weights_are_judged_by_images_like_those_of_the_training():
    judges = {
        name: judged_by(dataclasses.replace(PAPER, objective=name)) for name in ("at", "trades", "natural", "gaussian")
    }
    assert judges == {
        "at": "validation_pgd10_accuracy",
        "trades": "validation_pgd10_accuracy",
        "natural": "validation_clean_accuracy",
        "gaussian": "validation_noisy_accuracy",
    }
