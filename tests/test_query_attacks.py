"""Attacks that ask for logits or labels only: what they find, what they may ask, and that seeds repeat them."""

import foolbox
import pytest
import torch
from torch import nn

from training.attacks import hop_skip_jump, nattack, random_noise, square
from training.attacks.hop_skip_jump import nearest_mistakes
from training.evaluation.protocol import ImageStreams


class Linear(nn.Module):
    """Two classes of 8x8 images, at a known distance of each other; counts how often it is asked about an image."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.weight = nn.Parameter(scale * torch.randn(2, 3 * 8 * 8, generator=torch.Generator().manual_seed(1)))
        self.asked = 0
        self.largest = 0

    def forward(self, images):
        self.asked += len(images)
        self.largest = max(self.largest, len(images))
        return images.flatten(1) @ self.weight.T

    def distances(self, images):
        """To the other class, by the largest norm: the margin over the L1 norm of its gradient."""
        top = self(images).topk(2, dim=1).values
        return ((top[:, 0] - top[:, 1]) / (self.weight[0] - self.weight[1]).abs().sum()).detach()


@pytest.fixture
def model():
    return Linear().eval().requires_grad_(False)


@pytest.fixture
def images():
    return 0.3 + 0.4 * torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels(model, images):
    labels = model(images).argmax(dim=1)
    model.asked = model.largest = 0
    return labels


def seed(number=0):
    return torch.Generator().manual_seed(number)


def one_by_one(search):
    """The search with a generator for each image instead of one for all."""

    def attack(model, images, labels, *, generator, **options):
        return search(model, images, labels, random=ImageStreams(generator.initial_seed()).next(len(images)), **options)

    return attack


ATTACKS = {"square": one_by_one(square), "nattack": nattack, "hop_skip_jump": hop_skip_jump}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("queries", [1, 2, 300, 301, 1000, 3001])
def test_attack_asks_at_most_its_queries_and_stays_in_bounds(attack, queries, model, images, labels):
    images[0], images[1] = 0, 1
    adversarial = attack(model, images, labels, epsilon=0.004, queries=queries, generator=seed())
    assert model.asked <= queries * len(images)
    assert (adversarial - images).abs().max() <= 0.004 + 1e-6
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert not adversarial.requires_grad


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_no_image_is_asked_about_more_often_than_the_budget(attack, model, images, labels):
    for index in range(4):
        model.asked = 0
        attack(model, images[index, None], labels[index, None], epsilon=0.001, queries=700, generator=seed())
        assert model.asked <= 700


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_the_seed_repeats_the_attack_without_torchs_own_random_numbers(attack, model, images, labels):
    def run(number):
        return attack(model, images, labels, epsilon=0.02, queries=400, generator=seed(number))

    state = torch.get_rng_state()
    first, again, other = run(1), run(1), run(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("attack", "queries"), [(nattack, 6000), (hop_skip_jump, 2000)])
def test_attack_breaks_what_can_be_broken_and_nothing_else(attack, queries, model, images, labels):
    distances = model.distances(images)
    epsilon = distances.median().item()
    adversarial = attack(model, images, labels, epsilon=epsilon, queries=queries, generator=seed())
    broken = model(adversarial).argmax(dim=1) != labels
    assert not broken[distances > epsilon * 1.001].any()
    assert broken[distances < epsilon / 1.5].all()
    assert broken.any()


def test_nattack_spends_nothing_on_broken_images_and_a_batch_is_bounded(model, images, labels):
    images, labels = images.repeat(3, 1, 1, 1), labels.repeat(3)
    nattack(model, images, 1 - labels, epsilon=0.1, generator=seed())
    assert model.asked == len(images)
    nattack(model, images, labels, epsilon=0, queries=301, generator=seed())
    assert model.asked == len(images) * (1 + 301)
    assert model.largest == 1500


def test_nattack_looks_at_its_mean_every_ten_iterations(model, images, labels):
    nattack(model, images[:1], labels[:1], epsilon=0, queries=40_000, generator=seed())
    assert model.asked == 133 * 300 + 14


def test_nattacks_first_step_is_the_formula(model, images, labels):
    """mu = lr / (n sigma) sum A_i n_i, with the noise of the same generator."""
    image, label = images[:1], labels[:1]
    adversarial = nattack(model, image, label, epsilon=1.0, queries=301, generator=seed())
    drawn = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=seed())))
    noise = torch.randn(300, 1, 3, 8, 8, generator=drawn)[:, 0]
    hidden = torch.atanh(2 * image - 1)
    logits = model((torch.tanh(hidden + 0.1 * noise) + 1) / 2)
    rewards = [-0.5 * max((row[label] - row[1 - label]).item(), 0.0) for row in logits]
    rewards = torch.tensor(rewards)
    advantages = (rewards - rewards.mean()) / rewards.std(correction=0)
    mean = 0.008 / (300 * 0.1) * (advantages[:, None, None, None] * noise).sum(dim=0)
    torch.testing.assert_close(adversarial, (torch.tanh(hidden + mean) + 1) / 2, atol=1e-5, rtol=1e-4)


def test_hop_skip_jump_sees_labels_only(model, images, labels):
    def hard(images):
        return nn.functional.one_hot(model(images).argmax(dim=1), 2).float()

    options = {"epsilon": 0.01, "queries": 800}
    assert torch.equal(
        hop_skip_jump(hard, images, labels, generator=seed(), **options),
        hop_skip_jump(model, images, labels, generator=seed(), **options),
    )


def test_hop_skip_jump_returns_the_clean_image_where_nothing_is_found(images):
    def stubborn(images):
        return torch.tensor([[1.0, 0.0]]).repeat(len(images), 1)

    labels = torch.zeros(len(images), dtype=torch.long)
    assert torch.equal(hop_skip_jump(stubborn, images, labels, epsilon=1, queries=500, generator=seed()), images)


def test_hop_skip_jump_starts_from_other_images_where_noise_has_one_class(model, images):
    def wary(points):
        """Class 1 for the odd images and their close surroundings, class 0 for everything else."""
        is_near = ((points[:, None] - images[None, 1::2]).abs().amax(dim=(2, 3, 4)) < 0.1).any(dim=1)
        return torch.stack([0.5 + 0 * is_near, is_near], dim=1)

    labels = torch.tensor([0, 1]).repeat(6)
    found = nearest_mistakes(wary, images, labels, enough=0, queries=300, generator=seed())
    assert (wary(found).argmax(dim=1) != labels).all()


def test_hop_skip_jump_comes_nearer_than_foolbox_with_no_more_queries(model, images, labels):
    distances = model.distances(images)
    model.asked = 0
    torch.manual_seed(0)
    reference = foolbox.attacks.HopSkipJumpAttack(steps=8, constraint="linf")
    theirs = reference.run(
        foolbox.PyTorchModel(model, bounds=(0, 1)), images, foolbox.criteria.Misclassification(labels)
    )
    asked, model.asked = model.asked, 0
    ours = nearest_mistakes(model, images, labels, enough=0, queries=asked // len(images), generator=seed())
    assert model.asked <= asked
    assert (model(ours).argmax(dim=1) != labels).all()
    excess_theirs, excess_ours = ((x - images).abs().amax(dim=(1, 2, 3)) / distances for x in (theirs, ours))
    assert (excess_ours > 0.999).all()
    assert excess_ours.median() <= excess_theirs.median() * 1.02
    assert excess_ours.max() < 1.5


def test_random_noise_breaks_what_a_corner_breaks_and_counts_its_calls():
    calls = torch.zeros((), dtype=torch.long)

    def model(images):
        calls.add_(len(images))
        brightest = images[:, 0, 0, 0]  # wrong as soon as this pixel is raised
        return torch.stack([torch.full_like(brightest, 0.5), brightest], dim=1)

    images = torch.full((6, 3, 2, 2), 0.45)
    labels = torch.zeros(6, dtype=torch.long)
    found = random_noise(model, images, labels, epsilon=0.1, queries=40, random=ImageStreams(0).next(6))
    torch.testing.assert_close((found - images).abs(), torch.full_like(images, 0.1))
    assert (found[:, 0, 0, 0] > 0.5).all()
    assert calls <= 6 * 40
