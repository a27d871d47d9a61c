"""Attacks: bounds, closed forms on a linear model, and no side effects."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from training.attacks import cross_entropy, cw, fgsm, margin, pgd
from training.attacks.ascent import Aim, n_fgsm
from training.models import create_model


class Linear(nn.Module):
    """logits = w . images, whose loss gradient has a known sign."""

    def __init__(self):
        super().__init__()
        random = torch.Generator().manual_seed(1)
        # small enough that softmax never saturates, where the gradient would be exactly zero
        self.weight = nn.Parameter(0.01 * torch.randn(2, 3 * 32 * 32, generator=random))

    def forward(self, images):
        return images.flatten(1) @ self.weight.T


BOUNDED = {
    "fgsm": fgsm,
    "pgd": partial(pgd, step_size=0.01, steps=4),
    "pgd from the image": partial(pgd, step_size=0.01, steps=4, random_start=False),
    "cw": partial(cw, steps=3),
}


@pytest.mark.parametrize("epsilon", [0, 2 / 255, 8 / 255])
@pytest.mark.parametrize("attack", BOUNDED.values(), ids=BOUNDED)
def test_attack_stays_within_epsilon_and_the_pixel_range(attack, epsilon, batch):
    images, labels = batch
    images[0], images[1] = 0, 1
    adversarial = attack(create_model("resnet18", width=4).eval(), images, labels, epsilon=epsilon)
    assert (adversarial - images).abs().max() <= epsilon + 1e-7
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert not adversarial.requires_grad


@pytest.mark.parametrize("attack", [fgsm, partial(pgd, step_size=0.02, steps=4), partial(cw, steps=20)])
def test_attack_finds_the_optimum_of_a_linear_model(attack, batch):
    """With two classes the worst perturbation is -epsilon sign(w_y - w_other), cut to the pixel range."""
    images, labels = batch[0], batch[1] % 2
    model = Linear()
    towards = torch.sign(model.weight[1 - labels] - model.weight[labels]).view_as(images).detach()
    expected = (images + 0.03 * towards).clamp(0, 1)
    torch.testing.assert_close(attack(model, images, labels, epsilon=0.03), expected)


def test_margin_loss_is_the_difference_to_the_best_other_class_plus_confidence():
    logits = torch.tensor([[3.0, 1.0, 2.5], [0.0, 60.0, 2.0]])
    assert margin(logits, torch.tensor([0, 0])).tolist() == [-50.5, 0.0]


def test_n_fgsm_adds_twice_the_noise_and_one_step_without_projection(batch):
    images, labels = 0.5 + 0 * batch[0], batch[1] % 2
    model = Linear()

    def aim(attacked):
        logits = model(attacked)
        return Aim(cross_entropy(logits, labels), logits)

    perturbation = (n_fgsm(aim, images, labels, epsilon=0.05) - images).abs()
    assert 0.14 < perturbation.max() <= 0.15
    assert (perturbation > 0.05).float().mean() == pytest.approx(0.5, abs=0.03)


def test_random_start_differs_between_calls_and_none_is_deterministic(batch):
    attack = partial(pgd, Linear(), batch[0], batch[1] % 2, epsilon=0.1, step_size=0.0, steps=1)
    assert not torch.equal(attack(), attack())
    assert torch.equal(attack(random_start=False), batch[0])


def test_pgd_raises_the_loss_more_than_fgsm(batch):
    images, labels = batch
    torch.manual_seed(0)
    model = create_model("resnet18", width=8).eval()

    def loss(adversarial):
        return F.cross_entropy(model(adversarial), labels).item()

    one, ten = (
        fgsm(model, images, labels, epsilon=0.03),
        pgd(model, images, labels, epsilon=0.03, step_size=0.006, steps=10),
    )
    assert loss(images) < loss(one) < loss(ten)


def test_attacks_leave_the_model_as_it_was(batch):
    model = create_model("resnet18", width=4).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pgd(model, *batch, epsilon=0.03, step_size=0.01, steps=2)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
