"""One epoch of every objective with every module, and of a compiled run: they learn. Minutes of computing."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import CLASSES, colour, training_arguments

from training.batches import Data
from training.checkpoint import ModelConfig, RunConfig, RunFolder
from training.command import run
from training.data import ImageData
from training.device import pick_device
from training.objectives import OBJECTIVES
from training.processes import ALONE
from training.recipes import RECIPES
from training.rivals import RIVALS
from training.state import State
from training.train import train_epoch

MODULES = {"fsr": {}, "none": {"fsr": False}, **{rival: {"fsr": False, "rival": rival} for rival in RIVALS}}
RECIPE = dataclasses.replace(RECIPES["paper"], pgd_steps=2, batch_size=40, learning_rate=0.05, padding=2)


@pytest.fixture(scope="module")
def colours():
    """2,000 images of 16x16 pixels in three noisy colours."""
    random = np.random.default_rng(0)
    labels = random.integers(3, size=2000)
    pixels = np.stack([colour(random, channel) for channel in labels])
    return ImageData(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(labels), CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_learns_with_every_module_in_one_epoch(colours, objective, module):
    """The loss falls from the first fifth of the epoch to the last, and every parameter gets a gradient."""
    torch.manual_seed(0)
    rate = (
        0.01 if objective in ("mart", "trades") else RECIPE.learning_rate
    )  # as published: at a larger one they may jump
    recipe = dataclasses.replace(RECIPE, objective=objective, learning_rate=rate)
    device = pick_device()
    state = State.create(run_config(colours, recipe, MODULES[module]), device, ALONE)
    without_gradient = {name for name, _ in state.model.named_parameters()}
    for name, parameter in state.model.named_parameters():

        def note(parameter, name=name):
            if parameter.grad.any():
                without_gradient.discard(name)

        parameter.register_post_accumulate_grad_hook(note)
    sums = [0.0]  # of the losses so far, by step

    def progress(epoch, images, means):
        sums.append(float(means["loss"]) * len(sums))

    order = torch.Generator().manual_seed(0)
    data = Data(colours, colours)
    metrics = train_epoch(state, data, recipe, 1, recipe.pgd_steps, order, device, ALONE, progress)
    assert without_gradient == set()
    steps = len(sums) - 1
    fifth = steps // 5
    assert steps == 50
    assert sums[steps] - sums[steps - fifth] < 0.9 * sums[fifth]
    if module != "cifs":  # its masks, a softmax over channels, divide features by their number: logits grow slowly
        assert metrics["train_accuracy"] > 0.5


def run_config(data, recipe, module):
    model = ModelConfig(num_classes=3, **{"width": 8} | module)
    return RunConfig(
        model=model,
        recipe_name="paper",
        recipe=recipe,
        start=None,
        data="colours",
        data_name="colours",
        data_sha256=data.sha256,
        classes=data.classes,
        image_shape=data.shape,
        seed=0,
    )


@pytest.mark.slow
def test_a_compiled_run_learns_the_same(tiny_data, tmp_path):
    for name, compiled in (("compiled", True), ("eager", False)):
        run(training_arguments(tiny_data, tmp_path / name, epochs=1, natural_share=0.0, compile=compiled))
    compiled, eager = (RunFolder(tmp_path / name).history()[0]["loss"] for name in ("compiled", "eager"))
    assert compiled == pytest.approx(eager, rel=0.05)
