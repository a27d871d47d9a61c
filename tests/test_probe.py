"""PGD and Square on deployed files, with onnxruntime alone."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from export.attack_graph import attack_network, example_inputs
from export.graph import to_onnx, write_graphs
from export.version import ATTACK_INPUTS, ATTACK_OUTPUTS
from fsr_serve.checks.probe import CROSS_ENTROPY, MARGIN, AttackGraph, pgd
from fsr_serve.session import OnnxModel
from training.attacks import cross_entropy, margin
from training.attacks import pgd as torch_pgd
from training.checkpoint import RunFolder
from training.data import load_images, to_floats

EPSILON = 8 / 255


class Linear(nn.Module):
    """Two classes: the best attack within epsilon is known."""

    def __init__(self):
        super().__init__()
        random = torch.Generator().manual_seed(1)
        # small enough that softmax never saturates, where the gradient would be exactly zero
        self.weight = nn.Parameter(0.01 * torch.randn(2, 3 * 8 * 8, generator=random), requires_grad=False)

    def forward(self, images):
        return images.flatten(1) @ self.weight.T


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    folder = tmp_path_factory.mktemp("linear")
    traced = attack_network(Linear().eval(), (8, 8), 2)
    graph = to_onnx(traced, example_inputs((8, 8), 2), ATTACK_INPUTS, ATTACK_OUTPUTS)
    write_graphs({"attack.onnx": graph}, folder)
    return AttackGraph(folder / "attack.onnx", device="cpu", threads=1)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((6, 3, 8, 8), dtype=np.float32)


@pytest.fixture
def labels():
    return np.array([0, 1, 0, 1, 1, 0])


@pytest.mark.parametrize("loss_weights", [CROSS_ENTROPY, MARGIN])
def test_pgd_finds_the_optimum_of_a_linear_model(linear, images, labels, loss_weights):
    weight = Linear().weight.numpy()
    towards = np.sign(weight[1 - labels] - weight[labels]).reshape(images.shape)
    expected = np.clip(images + EPSILON * towards, 0, 1)
    steps = partial(pgd, linear, images, labels, epsilon=EPSILON, loss_weights=loss_weights)
    np.testing.assert_allclose(steps(step_size=EPSILON, steps=1), expected, atol=1e-6)
    start = np.random.default_rng(1).uniform(-EPSILON, EPSILON, images.shape).astype(np.float32)
    np.testing.assert_allclose(steps(step_size=EPSILON / 4, steps=10, start=start), expected, atol=1e-6)


def test_without_steps_pgd_is_the_start_kept_within_epsilon_and_the_pixel_range(linear, images, labels):
    start = np.full_like(images, 2 * EPSILON)
    found = pgd(linear, images, labels, epsilon=EPSILON, step_size=0.0, steps=0, start=start)
    np.testing.assert_allclose(found, np.minimum(images + EPSILON, 1), atol=1e-7)


@pytest.mark.parametrize(("loss", "loss_weights"), [(cross_entropy, CROSS_ENTROPY), (margin, MARGIN)])
def test_a_deployed_file_gives_the_answers_of_torch_under_attack_from_the_same_start(
    checkpoint, models, tiny_data, loss, loss_weights
):
    data = load_images(str(tiny_data), "train")
    images, labels = to_floats(data.pixels), data.labels
    model = RunFolder(checkpoint).load_model("best").requires_grad_(False)
    start = torch.empty_like(images).uniform_(-EPSILON, EPSILON, generator=torch.Generator().manual_seed(0))
    options = {"epsilon": EPSILON, "step_size": EPSILON / 4, "steps": 5}
    expected = model(torch_pgd(model, images, labels, start=start, loss=loss, **options)).argmax(dim=1).numpy()
    version = models / "colours" / "1"
    graph = AttackGraph(version / "attack.onnx", device="cpu", threads=1)
    adversarial = pgd(graph, images.numpy(), labels.numpy(), start=start.numpy(), loss_weights=loss_weights, **options)
    found = OnnxModel(version / "model.onnx", device="cpu", threads=1).logits(adversarial).argmax(axis=1)
    assert (found == expected).mean() >= 0.995
