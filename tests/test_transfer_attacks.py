"""Translation-invariant and diverse-input FGSM: their limits are plain PGD, and their parts are checked apart."""

from functools import partial

import pytest
import torch
from scipy.signal import convolve2d
from scipy.stats import norm
from torch.nn import functional as F

from training.attacks import di_fgsm, pgd, ti_fgsm
from training.attacks.transfer import gaussian_kernel, shrunk
from training.models import create_model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("resnet18", width=4).eval().requires_grad_(False)


def di(model, images, labels, *, seed=0, **options):
    return di_fgsm(model, images, labels, generator=torch.Generator().manual_seed(seed), **options)


@pytest.mark.parametrize("attack", [ti_fgsm, di])
@pytest.mark.parametrize("epsilon", [0, 8 / 255, 64 / 255])
def test_attack_stays_within_epsilon_and_the_pixel_range(attack, epsilon, model, batch):
    images, labels = batch
    images[0], images[1] = 0, 1
    adversarial = attack(model, images, labels, epsilon=epsilon)
    assert (adversarial - images).abs().max() == pytest.approx(epsilon, abs=1e-6)
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert not adversarial.requires_grad


@pytest.mark.parametrize("attack", [partial(ti_fgsm, kernel_size=1), partial(di, probability=0)])
def test_without_kernel_or_diversity_it_is_pgd_from_the_image(attack, model, batch):
    plain = pgd(model, *batch, epsilon=8 / 255, step_size=2 / 255, steps=10, random_start=False)
    assert torch.equal(attack(model, *batch, epsilon=8 / 255), plain)


@pytest.mark.parametrize("attack", [ti_fgsm, di])
def test_by_default_it_is_not_pgd_and_still_raises_the_loss(attack, model, batch):
    images, labels = batch
    plain = pgd(model, images, labels, epsilon=8 / 255, step_size=2 / 255, steps=10, random_start=False)
    adversarial = attack(model, images, labels, epsilon=8 / 255)
    assert (adversarial != plain).float().mean() > 0.01
    assert F.cross_entropy(model(adversarial), labels) > F.cross_entropy(model(images), labels)


def test_one_ti_step_goes_along_the_sign_of_the_convolved_gradient(model, batch):
    images, labels = 0.2 + 0.6 * batch[0], batch[1]
    images.requires_grad_()
    F.cross_entropy(model(images), labels).backward()
    density = norm.pdf(torch.linspace(-3, 3, 5))
    kernel = density[:, None] * density[None]
    step = ti_fgsm(model, images.detach(), labels, epsilon=0.04, steps=1, kernel_size=5) - images
    for image, channel in ((0, 0), (3, 1), (7, 2)):
        smooth = convolve2d(images.grad[image, channel].double(), kernel, mode="same")
        clear = torch.from_numpy(abs(smooth) > 1e-3 * abs(smooth).max())
        assert torch.equal(step[image, channel][clear].sign(), torch.from_numpy(smooth).sign().float()[clear])


def test_the_kernel_sums_to_one_and_falls_from_the_middle_as_the_normal_density():
    kernel = gaussian_kernel(7)
    assert kernel.sum().item() == pytest.approx(1)
    assert (kernel[3, 3] / kernel[3, 6]).item() == pytest.approx(norm.pdf(0) / norm.pdf(3), rel=1e-5)
    assert torch.equal(kernel, kernel.T)


@pytest.mark.parametrize("size", [-1, 0, 4])
def test_a_kernel_without_a_middle_is_refused(size, model, batch):
    with pytest.raises(ValueError, match=f"kernel_size is {size}; expected an odd number"):
        ti_fgsm(model, *batch, epsilon=0.1, kernel_size=size)


def test_shrunk_images_stand_in_a_black_frame_at_every_size_and_place():
    random = torch.Generator().manual_seed(0)
    boxes = set()
    for _ in range(400):
        rows, columns = shrunk(torch.ones(1, 3, 32, 32), 0.9, random)[0, 0].nonzero().T
        assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        boxes.add((int(rows.min()), int(rows.max() - rows.min() + 1), int(columns.max() - columns.min() + 1)))
    assert {height for _, height, _ in boxes} == {29, 30, 31}
    assert all(height == width for _, height, width in boxes)
    assert {top for top, height, _ in boxes if height == 29} == {0, 1, 2, 3}


def test_small_and_oblong_images_can_be_shrunk():
    image = shrunk(torch.ones(1, 3, 6, 12), 0.9, torch.Generator().manual_seed(0))[0, 0]
    assert image.shape == (6, 12)
    assert image.sum() == 5 * 10


def test_the_seed_decides_the_diverse_inputs(model, batch):
    first, again, other = (di(model, *batch, seed=seed, epsilon=0.05) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_gradient_through_diverse_inputs_is_taken_with_the_given_probability(batch):
    seen = []

    def model(images):
        seen.append(bool((images[:, :, 0] == 0).all() or (images[:, :, -1] == 0).all()))
        return images.mean(dim=(2, 3))

    images, labels = 0.5 + 0 * batch[0], batch[1] % 3
    di(model, images, labels, epsilon=4e-4, steps=400)
    # a frame of one pixel or more touches at least one of two opposite sides
    assert sum(seen) / 400 == pytest.approx(0.5, abs=0.08)
