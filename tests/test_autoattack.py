"""AutoAttack as we call it: against the package called by hand, on few classes, without side effects."""

import sys

import pyautoattack
import pytest
import torch
from torch import nn

from training.attacks import autoattack


class Linear(nn.Module):
    """Logits of 6x6 images, whose nearest other class is at a known distance."""

    def __init__(self, num_classes):
        super().__init__()
        random = torch.Generator().manual_seed(num_classes)
        self.weight = nn.Parameter(torch.randn(num_classes, 3 * 6 * 6, generator=random), requires_grad=False)

    def forward(self, images):
        return images.flatten(1) @ self.weight.T

    def distances(self, images, labels):
        margins = self(images).gather(1, labels[:, None]) - self(images)
        steepness = (self.weight[labels][:, None] - self.weight[None]).abs().sum(dim=2)
        return (margins / steepness).scatter(1, labels[:, None], torch.inf).amin(dim=1)


@pytest.fixture
def images():
    return 0.3 + 0.4 * torch.rand(9, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_it_breaks_what_can_be_broken_of_a_linear_model(num_classes, images):
    model = Linear(num_classes)
    labels = model(images).argmax(dim=1)
    epsilon = 1.02 * model.distances(images, labels).amax().item()
    adversarial = autoattack(model, images, labels, epsilon=epsilon, seed=0)
    assert (model(adversarial).argmax(dim=1) != labels).all()
    assert (adversarial - images).abs().max() <= epsilon + 1e-6
    assert not adversarial.requires_grad


def test_it_attacks_networks_and_images_that_are_channels_last(images):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4 * 4, 10)).requires_grad_(False)
    labels = network(images).argmax(dim=1)
    plain = autoattack(network, images, labels, epsilon=8 / 255, seed=0)
    last = torch.channels_last
    found = autoattack(network.to(memory_format=last), images.to(memory_format=last), labels, epsilon=8 / 255, seed=0)
    assert torch.equal(network(found).argmax(dim=1), network(plain).argmax(dim=1))


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [2, 3, 4, 10, 12])
def test_all_of_its_attacks_run_with_any_number_of_classes(num_classes, images, caplog):
    model = Linear(num_classes)
    labels = model(images).argmax(dim=1)
    distances = model.distances(images, labels)
    chosen = distances.sort().indices[[0, 3, -1]]  # more unbreakable images would only cost time
    epsilon = 0.97 * distances.amax().item()
    adversarial = autoattack(model, images[chosen], labels[chosen], epsilon=epsilon, seed=0)
    assert (model(adversarial).argmax(dim=1) != labels[chosen]).tolist() == [True, True, False]
    flags = [record.message for record in caplog.records if record.levelname == "WARNING"]
    # with three classes the package warns of targeted DLR though only the untargeted one is asked for
    assert not [flag for flag in flags if num_classes != 3 or "targeted DLR" not in flag]


@pytest.mark.slow
def test_it_is_the_standard_version_of_the_package(images):
    model = Linear(10)
    labels = model(images).argmax(dim=1)
    epsilon = model.distances(images, labels).median().item() * 1.05
    images, labels = images[:5], labels[:5]
    suite = pyautoattack.AutoAttack(model, norm="Linf", eps=epsilon, version="standard", seed=3)
    torch.manual_seed(0)
    expected, _ = suite.run_standard_evaluation(images, labels, batch_size=5)
    assert 0 < (expected != images).flatten(1).any(dim=1).sum() < 5
    found = autoattack(model, images, labels, epsilon=epsilon, seed=3)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_it_keeps_the_tracer_and_torchs_random_numbers(images):
    def tracer(frame, event, argument):
        return None

    model = Linear(4)
    labels = 1 - model(images).argmax(dim=1).clamp(max=1)
    before, state = sys.gettrace(), torch.get_rng_state()
    try:
        sys.settrace(tracer)
        autoattack(model, images, labels, epsilon=0.01, seed=0)
        kept = sys.gettrace()
    finally:
        sys.settrace(before)
    assert kept is tracer
    assert torch.equal(torch.get_rng_state(), state)


def test_without_the_package_the_error_names_the_extra(images, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install '.\[eval\]'"):
        autoattack(Linear(4), images, torch.zeros(9, dtype=torch.long), epsilon=0.01, seed=0)
