"""Recipes are what their sources say."""

import dataclasses

import pytest

from training.recipes import RECIPES
from training.schedule import learning_rate


def test_the_paper_recipe_is_section_4_1():
    recipe = RECIPES["paper"]
    assert (recipe.epochs, recipe.attack, recipe.pgd_steps, recipe.epsilon) == (100, "pgd", 10, 8 / 255)
    assert (recipe.momentum, recipe.weight_decay, recipe.batch_size) == (0.9, 5e-4, 128)
    assert (recipe.lambda_sep, recipe.lambda_rec) == (1, 1)
    rates = [learning_rate(recipe, epoch, 0.5) for epoch in (1, 74, 75, 89, 90, 100)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert not recipe.nesterov
    assert recipe.gradient_clip is recipe.ema_decay is None
    assert recipe.small_share == recipe.natural_share == 0


def test_the_fast_recipe_ends_on_attacked_images_of_full_size_however_short():
    for epochs in (1, 2, 15):
        recipe = dataclasses.replace(RECIPES["fast"], epochs=epochs)
        assert recipe.scale(epochs) == 1
        assert not recipe.is_natural(epochs)
    assert [RECIPES["fast"].scale(epoch) for epoch in (1, 9, 10)] == [0.75, 0.75, 1]
    assert [RECIPES["fast"].is_natural(epoch) for epoch in (1, 3, 4)] == [True, True, False]
