"""Attacks: bounds, closed forms on a linear model, and no side effects."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from training.attacks import cross_entropy, cw, fgsm, margin, pgd, square
from training.attacks.ascent import Aim, n_fgsm
from training.attacks.straight_through import straight_through
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


class Counted(Linear):
    """Counts how often it is asked about an image."""

    asked = 0

    def forward(self, images):
        self.asked += len(images)
        return super().forward(images)


@pytest.mark.parametrize("queries", [1, 2, 30])
def test_square_stays_within_epsilon_the_pixel_range_and_its_queries(queries, batch):
    images, labels = batch[0], batch[1] % 2
    model = Counted()
    random = torch.Generator().manual_seed(0)
    adversarial = square(model, images, labels, epsilon=0.03, queries=queries, generator=random)
    assert (adversarial - images).abs().max() <= 0.03 + 1e-6
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert model.asked <= queries * len(images)


def test_square_breaks_what_can_be_broken_and_nothing_else():
    random = torch.Generator().manual_seed(0)
    images = 0.25 + 0.5 * torch.rand(40, 3, 32, 32, generator=random)
    model = Linear()
    logits = model(images).detach()
    labels = logits.argmax(dim=1)
    margins = logits.amax(dim=1) - logits.amin(dim=1)
    # a perturbation within epsilon can move the margin of two classes by this much and no more
    epsilon = (margins.median() / (model.weight[0] - model.weight[1]).abs().sum()).item()
    adversarial = square(model, images, labels, epsilon=epsilon, queries=1500, generator=random)
    broken = model(adversarial).argmax(dim=1) != labels
    assert not broken[margins > margins.median()].any()
    assert broken[margins < 0.5 * margins.median()].all()
    assert broken.any()


def test_straight_through_answers_as_the_prepared_model_and_passes_the_gradient(batch):
    def rounded(images):
        return torch.round(images * 15) / 15

    images, model = batch[0].clone().requires_grad_(), Linear()
    logits = straight_through(rounded, model)(images)
    assert torch.equal(logits, model(rounded(batch[0])))
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), images)
    torch.testing.assert_close(gradient[3].flatten(), model.weight[0])
