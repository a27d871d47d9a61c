"""Certificates of randomized smoothing, beside the closed form of a linear network."""

import math

import pytest
import torch
from scipy.stats import binomtest, norm

from training.evaluation.smoothing import ABSTAINED, Smoothing, certify


def linear(images):
    """Two classes, told apart by the mean of the pixels: the distance to the boundary is |mean - 1/2| * sqrt(d)."""
    lead = images.flatten(1).mean(dim=1) - 0.5
    return torch.stack([lead, -lead], dim=1)


def certified(image, seed=0, batch=1_000, **options):
    smoothing = Smoothing(**({"sigma": 0.25, "samples": 20_000} | options))
    return certify(linear, image, smoothing, torch.Generator().manual_seed(seed), batch)


@pytest.mark.parametrize(("value", "answer"), [(0.51, 0), (0.48, 1)])
def test_the_radius_approaches_the_distance_to_the_boundary_of_a_linear_network_from_below(value, answer):
    image = torch.full((3, 8, 8), value)
    distance = abs(value - 0.5) * math.sqrt(image.numel())
    found = certified(image)
    assert found.answer == answer
    assert 0.9 * distance < found.radius < distance


def test_the_bound_is_clopper_and_pearsons():
    image, samples, alpha = torch.full((3, 8, 8), 0.51), 500, 0.01
    found = certified(image, samples=samples, guesses=10, alpha=alpha, batch=7)
    generator = torch.Generator().manual_seed(0)
    draws = torch.cat([torch.randn((n, 3, 8, 8), generator=generator) for n in (7, 3, *[7] * 71, 3)])
    hits = int((linear(image + 0.25 * draws[10:]).argmax(dim=1) == 0).sum())
    low = binomtest(hits, samples, alternative="greater").proportion_ci(1 - alpha, "exact").low
    assert found.radius == pytest.approx(0.25 * norm.ppf(low))


def test_on_the_boundary_it_abstains():
    assert certified(torch.full((3, 8, 8), 0.5)) == (ABSTAINED, 0.0)


def test_more_noise_than_the_image_bears_and_it_abstains_or_is_small():
    image = torch.full((3, 8, 8), 0.51)
    assert certified(image, sigma=100.0, samples=1_000).answer == ABSTAINED


def test_wrong_certificates_are_as_rare_as_alpha_allows():
    image = torch.full((3, 4, 4), 0.55)
    distance = 0.05 * math.sqrt(image.numel())
    too_large = sum(certified(image, seed, samples=100, alpha=0.1).radius > distance for seed in range(200))
    assert too_large <= 33, "expected 20 of 200 or fewer; three standard deviations more"
