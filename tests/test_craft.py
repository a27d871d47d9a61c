"""The images that training crafts, and the weights that AWP perturbs, on networks small enough to know the answer."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from training import craft as craft_module
from training.accuracy import frozen
from training.attacks import pgd
from training.attacks.ascent import Aim, ascend
from training.awp import perturbed_weights
from training.craft import craft
from training.models import create_model
from training.objectives import OBJECTIVES, Target
from training.recipes import RECIPES
from training.trainee import Trainee

PAPER = RECIPES["paper"]
EPSILON = PAPER.epsilon


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("resnet18", width=2, fsr=False).eval()


def crafted(model, batch, steps=3, epoch=1, **changes):
    images, labels = batch
    recipe = dataclasses.replace(PAPER, **changes)
    with frozen(model):
        target = Target(labels, labels)
        return craft(model, images, target, recipe.objective_in(epoch), recipe, epoch, steps)


def test_adversarial_training_crafts_by_pgd(model, batch):
    torch.manual_seed(1)
    expected = pgd(model, *batch, epsilon=EPSILON, step_size=EPSILON / 4, steps=3)
    torch.manual_seed(1)
    torch.testing.assert_close(crafted(model, batch), expected)


@pytest.mark.parametrize(("objective", "passes"), [("at", 3), ("mart", 3), ("alp", 3), ("trades", 4)])
def test_only_an_attack_that_compares_with_clean_answers_asks_for_them(model, batch, objective, passes):
    counted = []
    model.register_forward_hook(lambda *_: counted.append(1))
    crafted(model, batch, objective=objective)
    assert len(counted) == passes


def test_single_step_training_crafts_by_n_fgsm(model, batch):
    images, labels = batch
    torch.manual_seed(1)
    noisy = (images + torch.empty_like(images).uniform_(-2 * EPSILON, 2 * EPSILON)).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(noisy), labels, reduction="sum"), noisy)
    expected = (noisy + EPSILON * gradient.sign()).detach().clamp(0, 1)
    torch.manual_seed(1)
    torch.testing.assert_close(crafted(model, batch, attack="n_fgsm"), expected)


def test_trades_ascends_the_divergence_from_beside_the_image(model, batch, monkeypatch):
    assert craft_module.SMALL_START == 0.001
    monkeypatch.setattr(craft_module, "SMALL_START", 0.01)  # so that no sign of a gradient is one of rounding
    images, _ = batch
    torch.manual_seed(1)
    start = images + 0.01 * torch.randn_like(images)
    start = start.clamp(0, 1).clamp(images - EPSILON, images + EPSILON).requires_grad_()
    clean = model(images).detach().softmax(dim=1)
    loss = (clean * (clean.log() - model(start).log_softmax(dim=1))).sum()
    (gradient,) = torch.autograd.grad(loss, start)
    lower, upper = (images - EPSILON).clamp(min=0), (images + EPSILON).clamp(max=1)
    expected = torch.clamp(start + EPSILON / 4 * gradient.sign(), lower, upper)
    torch.manual_seed(1)
    found = crafted(model, batch, steps=1, objective="trades")
    assert torch.isclose(found, expected).float().mean() > 0.98


@pytest.mark.parametrize("objective", ["at", "trades", "mart", "alp", "s2o"])
@pytest.mark.parametrize("rival", [None, "cas", "cifs"])
def test_crafted_images_stay_within_epsilon_and_the_pixel_range(batch, objective, rival):
    model = create_model("resnet18", width=2, fsr=False, rival=rival)
    found = crafted(model, batch, steps=2, objective=objective)
    assert (found - batch[0]).abs().max() <= EPSILON + 1e-6
    assert 0 <= found.min() <= found.max() <= 1
    assert not found.requires_grad


def test_the_attack_on_cas_raises_the_loss_of_its_probes_too(batch):
    torch.manual_seed(0)
    images, labels = batch
    model = create_model("resnet18", width=2, fsr=False, rival="cas").eval()
    torch.manual_seed(1)
    start = (images + torch.empty_like(images).uniform_(-EPSILON, EPSILON)).clamp(0, 1).requires_grad_()
    heads = model.heads(start)
    loss = F.cross_entropy(heads.logits, labels, reduction="sum")
    loss = loss + 2 * sum(F.cross_entropy(probe, labels, reduction="sum") for probe in heads.probes) / 2
    (gradient,) = torch.autograd.grad(loss, start)
    lower, upper = (images - EPSILON).clamp(min=0), (images + EPSILON).clamp(max=1)
    torch.manual_seed(1)
    found = crafted(model, batch, steps=1)
    expected = torch.clamp(start + EPSILON / 4 * gradient.sign(), lower, upper)
    assert torch.isclose(found, expected).float().mean() > 0.999


def test_natural_images_are_as_they_are_and_gaussian_ones_noisy(model, batch):
    assert crafted(model, batch, objective="natural") is batch[0]
    noise = crafted(model, batch, objective="gaussian", sigma=0.5) - batch[0]
    assert noise.std().item() == pytest.approx(0.5, abs=0.02)
    assert crafted(model, batch, natural_share=0.5) is batch[0]


@pytest.mark.parametrize("patience", [None, 0, 1, 2])
def test_a_friendly_attack_stops_so_many_steps_after_the_mistake(patience):
    """One pixel p with logits (0.25 - p, 0): wrong above 0.25, and every step is 0.1 towards 1."""
    images, labels = torch.full((1, 1, 1, 1), 0.0), torch.tensor([0])

    def aim(images):
        logits = torch.cat([0.25 - images.flatten(1), torch.zeros(len(images), 1)], dim=1)
        return Aim(F.cross_entropy(logits, labels, reduction="none"), logits)

    found = ascend(aim, images, labels, start=images, epsilon=1.0, step_size=0.1, steps=8, patience=patience)
    assert found.item() == pytest.approx(0.8 if patience is None else 0.3 + 0.1 * patience)


def test_awp_moves_each_weight_matrix_up_the_loss_by_gamma_of_its_norm():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()
    inputs, labels = torch.randn(8, 3), torch.randint(2, (8,))

    def loss():
        return F.cross_entropy(model(inputs), labels)

    gradients = torch.autograd.grad(loss(), list(model.parameters()))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with perturbed_weights(model, 0.01, loss, lambda gradient: gradient):
        for (name, weight), gradient in zip(model.named_parameters(), gradients, strict=True):
            moved = 0.01 * before[name].norm() * gradient / gradient.norm() if weight.dim() > 1 else 0
            torch.testing.assert_close(weight, before[name] + moved)
        worse = loss()
    after = model.state_dict()
    assert all(
        torch.equal(after[name], value) for name, value in before.items() if "running" not in name and "num" not in name
    )
    assert worse > loss()


def test_awp_leaves_the_statistics_of_batch_norm_alone():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)).train()
    with perturbed_weights(model, 0.01, lambda: model(torch.randn(8, 3) + 5).sum(), lambda gradient: gradient):
        assert model[0].running_mean.tolist() == [0, 0, 0]
    assert model[0].momentum == 0.1


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("module", [{"fsr": True}, {}, *({"rival": rival} for rival in ("fd", "cas", "cifs"))])
def test_every_parameter_learns_under_every_objective_with_every_module(batch, name, module):
    torch.manual_seed(0)
    images, labels = batch
    model = create_model("resnet18", width=2, **{"fsr": False} | module).train()
    for norm in (m.bn for m in model.modules() if hasattr(m, "theta")):
        nn.init.ones_(norm.weight)  # which is zero at the start of FD, and stops the gradient of what is before it
    target = Target(labels, labels)
    attacked = (images + 0.03 * torch.randn_like(images)).clamp(0, 1)
    Trainee(model, PAPER)(images, attacked, target, OBJECTIVES[name]).loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("objective", "is_reduced", "largest"), [("trades", False, 0.01), ("mart", True, 0.01), ("trades", True, EPSILON)]
)
def test_trades_starts_where_bfloat16_can_tell_it_from_the_image(model, objective, is_reduced, largest):
    images = torch.full((2, 3, 32, 32), 0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_reduced):
        start = crafted(model, (images, torch.zeros(2, dtype=torch.long)), steps=0, objective=objective)
    assert largest / 10 < (start - images).abs().max() <= largest + 1e-6
