"""Attacks that know FSR: their gradients against the formulas written out, and that the model is left as it was."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from training.attacks import cross_entropy, margin
from training.attacks.adaptive import all_heads, feature_matching, mask_pgd
from training.attacks.ascent import Aim, ascend
from training.attacks.mask_gradients import alone, detached, relaxed
from training.models import FSR, create_model, insert_fsr


class Mean(nn.Module):
    def forward(self, features):
        return features.mean(dim=(2, 3))


@pytest.fixture
def model():
    """A stem, FSR of tau 0.1 behind it, and a linear head; 8x8 pixels, three classes."""
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh())
    model = insert_fsr(nn.Sequential(stem, Mean(), nn.Linear(6, 3)), ["0"], 3, image_shape=(3, 8, 8)).eval()
    with torch.no_grad():
        # scores spread around the edge of the mask, and answers of all three classes
        model.network[0][1].separation.score[-1].weight.mul_(5)
        head = model.network[2]
        head.weight.mul_(30)
        head.bias.sub_(model(coloured(100)).mean(dim=0))
    return model


def coloured(n, seed=5):
    """Images of one colour each, with some noise."""
    random = torch.Generator().manual_seed(seed)
    return 0.8 * torch.rand(n, 3, 1, 1, generator=random) + 0.2 * torch.rand(n, 3, 8, 8, generator=random)


@pytest.fixture
def batch():
    random = torch.Generator().manual_seed(0)
    return torch.rand(6, 3, 8, 8, generator=random), torch.tensor([0, 1, 2, 0, 1, 2])


def gradient_of(model, images, labels):
    images = images.clone().requires_grad_()
    logits = model(images)
    return torch.autograd.grad(F.cross_entropy(logits, labels), images)[0], logits.detach()


def by_hand(model, images, labels, mask_of, features_of):
    """The gradient with `mask_of(robustness map)` for m- and `features_of(features)` where the mask weighs them."""
    network = model.network
    stem, fsr = network[0]
    images = images.clone().requires_grad_()
    features = stem(images)
    mask, weighed = mask_of(fsr.separation.score(features)), features_of(features)
    output = weighed + mask * fsr.recalibration(mask * weighed)
    return torch.autograd.grad(F.cross_entropy(network[2](output.mean(dim=(2, 3))), labels), images)[0]


def exact(scores):
    return torch.sigmoid(-scores / 0.1)


class Smoothed(torch.autograd.Function):
    """m- forward at tau 0.1, backward at tau 0.5."""

    @staticmethod
    def forward(context, scores):
        context.save_for_backward(scores)
        return torch.sigmoid(-scores / 0.1)

    @staticmethod
    def backward(context, gradient):
        (scores,) = context.saved_tensors
        m = torch.sigmoid(-scores / 0.5)
        return -gradient * m * (1 - m) / 0.5


GRADIENTS = {
    "relaxed": (partial(relaxed, tau=0.5), Smoothed.apply, lambda features: features),
    "detached": (detached, lambda scores: exact(scores).detach(), lambda features: features),
    "alone": (alone, exact, torch.detach),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_the_forward_pass_is_exact_and_the_gradient_is_the_formula(name, model, batch):
    mask_gradient, mask_of, features_of = GRADIENTS[name]
    own, logits = gradient_of(model, *batch)
    with mask_gradient(model):
        changed, same_logits = gradient_of(model, *batch)
    assert torch.equal(same_logits, logits)
    torch.testing.assert_close(changed, by_hand(model, *batch, mask_of, features_of), atol=1e-7, rtol=1e-4)
    assert not torch.allclose(changed, own, atol=1e-5)


def test_relaxed_at_the_own_tau_is_the_own_gradient(model, batch):
    own, _ = gradient_of(model, *batch)
    with relaxed(model, tau=0.1):
        torch.testing.assert_close(gradient_of(model, *batch)[0], own)


def test_relaxing_gives_a_binary_mask_a_gradient(batch):
    model = create_model("resnet18", width=4, mask="binary").eval()
    (fsr,) = (module for module in model.modules() if isinstance(module, FSR))
    scores = fsr.separation.score[-1].weight
    logits = model(batch[0])
    assert torch.autograd.grad(logits.sum(), scores, allow_unused=True) == (None,)
    with relaxed(model, tau=1.0):
        relaxed_logits = model(batch[0])
        assert torch.equal(relaxed_logits, logits)
        assert torch.autograd.grad(relaxed_logits.sum(), scores)[0].abs().sum() > 0


ATTACKS = {
    **{name: partial(mask_pgd, mask_gradient=gradient) for name, (gradient, *_) in GRADIENTS.items()},
    "relaxed, margin": partial(mask_pgd, mask_gradient=partial(relaxed, tau=1.0), loss=margin),
    "all heads": all_heads,
    "all heads, margin": partial(all_heads, loss=margin),
    "features": partial(feature_matching, guides=coloured(20, seed=7)),
}
OPTIONS = {"step_size": 0.02, "steps": 4}


def hooks_of(model):
    return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_attack_stays_in_bounds_repeats_itself_and_leaves_the_model_as_it_was(attack, model, batch):
    images, labels = batch
    images[0], images[1] = 0, 1
    state = {name: value.clone() for name, value in model.state_dict().items()}
    start = 0.05 * torch.rand(images.shape, generator=torch.Generator().manual_seed(1))
    adversarial = attack(model, images, labels, epsilon=0.06, start=start, **OPTIONS)
    assert 0.02 < (adversarial - images).abs().max() <= 0.06 + 1e-6
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert not adversarial.requires_grad
    assert torch.equal(attack(model, images, labels, epsilon=0.06, start=start, **OPTIONS), adversarial)
    assert not torch.equal(attack(model, images, labels, epsilon=0.06, **OPTIONS), adversarial)
    assert torch.equal(attack(model, images, labels, epsilon=0, start=start, **OPTIONS), images)
    assert not any(hooks_of(model))
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_hooks_go_after_an_exception_too(attack, model, batch):
    model.network[2].weight.data = torch.ones(3, 7)
    with pytest.raises(RuntimeError):
        attack(model, *batch, epsilon=0.06, **OPTIONS)
    assert not any(hooks_of(model))


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_model_without_fsr_is_refused(attack, batch):
    for model, name in ((create_model("resnet18", width=4, fsr=False), "FSRNet"), (nn.Flatten(), "Flatten")):
        with pytest.raises(ValueError, match=f"the model is a {name} without FSR; expected an FSRNet with FSR"):
            attack(model, *batch, epsilon=0.06, **OPTIONS)


def test_a_mask_without_a_net_or_a_tau_of_zero_is_refused(model):
    with (
        pytest.raises(ValueError, match="a mask is GreedyMask"),
        relaxed(create_model("vgg16", width=2, mask="greedy"), 1.0),
    ):
        pass
    with pytest.raises(ValueError, match="tau is 0; expected a positive temperature"), relaxed(model, 0):
        pass


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_image_is_left_as_soon_as_it_is_misclassified(attack, model):
    images = coloured(60)
    labels = model(images).argmax(dim=1)
    found = [images, *(attack(model, images, labels, epsilon=0.1, step_size=0.01, steps=k) for k in range(1, 11))]
    wrong = [model(adversarial).argmax(dim=1) != labels for adversarial in found]
    assert 0 < wrong[-1].sum() < len(images)
    for sooner, later, is_wrong in zip(found, found[1:], wrong, strict=False):
        assert torch.equal(later[is_wrong], sooner[is_wrong])
        assert not torch.equal(later[~is_wrong], sooner[~is_wrong])


def test_mask_pgd_at_the_own_tau_is_pgd_until_the_answer_is_wrong(model):
    images = coloured(20)
    labels = model(images).argmax(dim=1)

    def aim(attacked):
        logits = model(attacked)
        return Aim(cross_entropy(logits, labels), logits)

    options = {"epsilon": 0.06, **OPTIONS}
    ours = mask_pgd(model, images, labels, mask_gradient=partial(relaxed, tau=0.1), **options)
    expected = ascend(aim, images, labels, start=images, patience=0, **options)
    assert (ours == expected).float().mean() > 0.999


def test_all_heads_takes_the_mean_over_logits_and_the_robust_and_recalibrated_ones(model, batch):
    images, labels = batch[0].clone().requires_grad_(), model(batch[0]).argmax(dim=1)
    heads = model.heads(images)
    losses = [
        F.cross_entropy(logits, labels) for logits in (heads.logits, heads.fsr[0].robust, heads.fsr[0].recalibrated)
    ]
    (gradient,) = torch.autograd.grad(sum(losses), images)
    step = all_heads(model, batch[0], labels, epsilon=0.06, step_size=1e-3, steps=1) - batch[0]
    clear = (gradient.abs() > 1e-7) & (batch[0] > 0.01) & (batch[0] < 0.99)
    assert clear.float().mean() > 0.9
    assert torch.equal(step.sign()[clear], gradient.sign()[clear])


@pytest.mark.parametrize("rival", ["cas", "cifs"])
def test_all_heads_attacks_the_probes_of_rivals_with_the_logits(rival, batch):
    model = create_model("resnet18", width=4, fsr=False, rival=rival).eval()
    images, labels = batch[0].clone().requires_grad_(), model(batch[0]).argmax(dim=1)
    heads = model.heads(images)
    assert len(heads.probes) == 2
    losses = [F.cross_entropy(logits, labels) for logits in (heads.logits, *heads.probes)]
    (gradient,) = torch.autograd.grad(sum(losses), images)
    step = all_heads(model, batch[0], labels, epsilon=0.06, step_size=1e-3, steps=1) - batch[0]
    clear = (gradient.abs() > 1e-7) & (batch[0] > 0.01) & (batch[0] < 0.99)
    assert clear.float().mean() > 0.9
    assert torch.equal(step.sign()[clear], gradient.sign()[clear])
    with pytest.raises(ValueError, match="without FSR; expected an FSRNet with FSR"):
        all_heads(create_model("resnet18", width=4, fsr=False, rival="fd"), *batch, epsilon=0.06, **OPTIONS)


def test_feature_matching_moves_towards_the_nearest_guide_of_another_class(model, batch):
    guides, images = coloured(20), coloured(6, seed=6)
    predicted = model(guides).argmax(dim=1)
    labels = model(images).argmax(dim=1)

    def features(images):
        return model.network[0](images).mean(dim=(2, 3)).detach()

    distances = (features(images)[:, None] - features(guides)[None]).norm(dim=2)
    expected = [
        min((d, g) for g, d in enumerate(row) if predicted[g] != y)[1] for row, y in zip(distances, labels, strict=True)
    ]
    moved = feature_matching(model, images, labels, guides=guides, epsilon=0.1, step_size=0.01, steps=20)
    before, after = ((features(x) - features(guides[expected])).norm(dim=1) for x in (images, moved))
    assert (after < 0.9 * before).all()  # less would be nearer, but a wrong answer ends it


def test_an_image_without_a_guide_of_another_class_stays(model, batch):
    guides = batch[0][:1]
    label = model(guides).argmax(dim=1)
    start = torch.full((3, 1, 1), 0.01)
    moved = feature_matching(model, guides, label, guides=guides, epsilon=0.1, start=start, **OPTIONS)
    torch.testing.assert_close(moved, (guides + 0.01).clamp(max=1))
