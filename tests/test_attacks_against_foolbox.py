"""FGSM, PGD and margin PGD against another library's, pixel by pixel, from the same starts."""

import eagerpy as ep
import foolbox
import pytest
import torch
from torch import nn

from training.attacks import cross_entropy, fgsm, margin, pgd

EPSILON = 8 / 255


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Softplus(), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(128, 10)]
    return nn.Sequential(*layers).double().eval()


@pytest.fixture
def batch(batch):
    return batch[0].double(), batch[1]


def their_pgd(start, loss, *, step_size, steps):
    """Foolbox's PGD, its start and its loss replaced."""

    class Attack(foolbox.attacks.LinfProjectedGradientDescentAttack):
        def get_random_start(self, images, epsilon):
            return images + ep.astensor(start)

        def get_loss_fn(self, model, labels):
            return lambda images: ep.astensor(loss(model(images).raw, labels.raw).sum())

    return Attack(abs_stepsize=step_size, steps=steps)


def c_and_w(logits, labels):
    """-max(z_y - max_{j != y} z_j + 50, 0), image by image."""
    rows = zip(logits, labels.tolist(), strict=True)
    return torch.stack([-(row[y] - max(row[j] for j in range(10) if j != y) + 50).clamp(min=0) for row, y in rows])


@pytest.mark.parametrize(("ours", "theirs"), [(cross_entropy, cross_entropy), (margin, c_and_w)], ids=["pgd", "margin"])
def test_pgd_equals_foolboxs_from_the_same_start(ours, theirs, model, batch):
    images, labels = batch
    start = EPSILON * (2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(1)).double() - 1)
    options = {"step_size": EPSILON / 10, "steps": 20}
    found = pgd(model, images, labels, epsilon=EPSILON, start=start, loss=ours, **options)
    expected = their_pgd(start, theirs, **options).run(
        foolbox.PyTorchModel(model, bounds=(0, 1)), images, labels, epsilon=EPSILON
    )
    assert (found - images).abs().max() > 0.9 * EPSILON
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_fgsm_equals_foolboxs(model, batch):
    images, labels = batch
    reference = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    expected = reference.run(foolbox.PyTorchModel(model, bounds=(0, 1)), images, labels, epsilon=EPSILON)
    torch.testing.assert_close(fgsm(model, images, labels, epsilon=EPSILON), expected, atol=1e-12, rtol=0)
