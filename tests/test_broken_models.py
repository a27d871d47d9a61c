"""Models that only look robust: our attacks must drive them to nothing, or they prove nothing about the others.

The three controls of Carlini et al. (2019, arXiv 1902.06705) and Pintor et al. (2022): winners take all (Xiao et al.,
ICLR 2020), logits so large that softmax saturates, quantised input. And the attacks on an honest network.
"""

import os
from functools import partial
from pathlib import Path

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import nn
from torch.nn import functional as F

from training.attacks import cross_entropy, cw, margin, nattack, pgd, square
from training.data import load_images, to_floats
from training.evaluation.protocol import ImageStreams

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("DATA", ROOT / "data" / "cifar10"))
EPSILON = 8 / 255
TRAINED, ATTACKED = 4000, 200


class WinnersTakeAll(nn.Module):
    """Keeps the largest tenth of each image's activations."""

    def forward(self, features):
        flat = features.flatten(1)
        least = flat.topk(flat.shape[1] // 10, dim=1).values[:, -1:]
        return torch.where(flat >= least, flat, 0.0).view_as(features)


@pytest.fixture(scope="module")
def data():
    if not DATA.exists():
        pytest.skip(f"CIFAR-10 (JPEG) is not at {DATA}")
    images = load_images(str(DATA), "test")
    return to_floats(images.pixels), images.labels


def trained(activation, images, labels):
    """A network of three convolutions after eight epochs of natural training."""
    torch.manual_seed(0)
    layers = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, stride=2, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), activation()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    batches = [batch for _ in range(8) for batch in torch.randperm(len(images)).split(128)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=len(batches))
    for batch in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
        schedule.step()
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network(data):
    images, labels = data
    return trained(nn.ReLU, images[:TRAINED], labels[:TRAINED])


def known(model, data, n=ATTACKED):
    """Images that the model gets right, so that its accuracy on them is 1 before the attack."""
    images, labels = (part[TRAINED:] for part in data)
    right = torch.nonzero(model(images).argmax(dim=1) == labels).squeeze(1)[:n]
    return images[right], labels[right]


def is_right(model, images, labels):
    return model(images).argmax(dim=1) == labels


def accuracy(model, images, labels):
    return is_right(model, images, labels).float().mean().item()


def worst_of(attacks, model, images, labels):
    """Share of images that are right under each of the attacks."""
    flags = [is_right(model, attack(model, images, labels), labels) for attack in attacks]
    return torch.stack(flags).all(dim=0).float().mean().item()


def straight_through(prepare, model):
    """`model` after `prepare`, with the identity as the gradient of `prepare` (BPDA, Athalye et al., ICML 2018)."""
    return lambda images: model(prepare(images).detach() + (images - images.detach()))


def seed(number=0):
    return torch.Generator().manual_seed(number)


cross_entropy_pgd = partial(pgd, epsilon=EPSILON, step_size=EPSILON / 10, steps=20, random_start=False)
margin_pgd = partial(cw, epsilon=EPSILON, random_start=False)


def squares(model, images, labels, *, epsilon=EPSILON, queries=5000, number=0):
    random = ImageStreams(number).next(len(images))
    return square(model, images, labels, epsilon=epsilon, queries=queries, random=random)


def test_winners_that_take_all_fall_to_the_worst_of_the_attacks(data):
    images, labels = data
    model = trained(WinnersTakeAll, images[:TRAINED], labels[:TRAINED])
    images, labels = known(model, data)
    assert worst_of([cross_entropy_pgd, margin_pgd, squares], model, images, labels) < 0.05


def test_logits_a_thousand_times_larger_fall_to_the_margin_where_cross_entropy_has_no_gradient(network, data):
    def model(images):
        return 1000 * network(images)

    images, labels = known(model, data)
    assert accuracy(model, cross_entropy_pgd(model, images, labels), labels) > 0.5
    assert accuracy(model, margin_pgd(model, images, labels), labels) < 0.05


def test_quantised_input_falls_to_queries_and_straight_through_where_there_is_no_gradient(network, data):
    def quantised(images):
        return torch.round(images * 15) / 15

    def model(images):
        return network(quantised(images))

    images, labels = known(model, data)
    for attack in (cross_entropy_pgd, margin_pgd):
        assert accuracy(model, attack(model, images, labels), labels) > 0.5
        through = attack(straight_through(quantised, network), images, labels)
        assert accuracy(model, through, labels) < 0.05
    assert accuracy(model, squares(model, images, labels), labels) < 0.05


def test_square_breaks_as_many_images_as_the_authors_own(network, data):
    """At most two points fewer, on 300 images, as the mean of two seeds."""
    images, labels = known(network, data, n=300)
    epsilon, queries, shares = 3 / 255, 1000, []
    for number in (0, 1):
        ours = squares(network, images, labels, epsilon=epsilon, queries=queries, number=number)
        reference = SquareAttack(
            network, norm="Linf", eps=epsilon, n_queries=queries, seed=number, resc_schedule=True, device="cpu"
        )
        theirs = reference.perturb(images, labels)
        shares.append([1 - accuracy(network, found, labels) for found in (ours, theirs)])
    ours, theirs = torch.tensor(shares).mean(dim=0).tolist()
    assert 0.2 < theirs < 0.9, "so weak or strong that anything would agree"
    assert theirs - 0.02 <= ours <= theirs + 0.05, "far more would be another attack"


def test_nattack_breaks_an_undefended_network_within_its_queries(network, data):
    asked = 0

    def counted(images):
        nonlocal asked
        asked += len(images)
        return network(images)

    images, labels = known(network, data, n=20)
    found = nattack(counted, images, labels, epsilon=EPSILON, generator=seed(), queries=15_000)
    assert asked <= 20 * 15_000
    assert accuracy(network, found, labels) <= 0.2
    assert (found - images).abs().max() <= EPSILON + 1e-6


def test_losses_and_restarts_order_as_they_should(network, data):
    images, labels = known(network, data)
    weak = partial(pgd, epsilon=2 / 255, step_size=0.5 / 255, steps=4)
    one, five = [], []
    for number in range(4):
        torch.manual_seed(number)
        one.append(worst_of([weak], network, images, labels))
        five.append(worst_of([weak] * 5, network, images, labels))
    assert sum(five) < sum(one)
    for loss in (cross_entropy, margin):
        assert accuracy(network, weak(network, images, labels, loss=loss), labels) < 1
