"""Verdicts on few images and on many: what an interval must show before anything passes or fails."""

import numpy as np
import pytest
import torch
from made_up_runs import measured
from torch import nn

from training.data import ImageData
from training.evaluation.bounds import Bound, outcome, outcome_of
from training.evaluation.missing import Subject
from training.evaluation.obfuscation import RULES, judged
from training.evaluation.obfuscation_command import zero_gradients
from training.evaluation.statistics import Difference, Interval, unpaired_difference, wilson
from training.models import FSRNet

CONVERGED = next(rule for rule in RULES if rule.number == "3")
FIVE_STARTS = "cross-entropy, 1000 steps of epsilon/10, 5 random starts"


def verdict(n, pgd100, pgd1000, is_kept=True):
    """Of rule 3 on `n` images of which the first so many are right."""
    right = {"pgd100": pgd100, "pgd1000": pgd1000}
    found = [measured(name, n=n, share=count / n, definition=FIVE_STARTS) for name, count in right.items()]

    def flags(result):
        return np.arange(n) < right[result.attack] if is_kept else None

    return judged(CONVERGED, found, Subject(), flags)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.02, 0.002, "pass"), (-0.02, 0.003, "too few images"), (0.002, 0.01, "too few images"), (0.0021, 0.01, "fail")],
)
def test_the_whole_interval_decides(low, high, expected):
    assert outcome(Difference((low + high) / 2, low, high), 0.002) == expected


def test_one_bound_that_is_broken_fails_and_one_that_is_not_known_passes_nothing():
    def judged_as(*shares):
        bounds = [
            Bound(f"{share}", None, 0.3).judged({f"{share}": measured("", share=share)}, None) for share in shares
        ]
        return outcome_of(bounds)

    assert judged_as(0.1, 0.2) == "pass"
    assert judged_as(0.1, 0.3) == "too few images"
    assert judged_as(0.1, 0.3, 0.5) == "fail"


@pytest.mark.parametrize("right", [80, 79])
def test_one_image_more_or_less_does_not_turn_a_verdict(right):
    assert verdict(200, 80, right).status == "too few images"
    assert verdict(50, 20, 20).status == "too few images"


def test_many_images_tell_and_so_do_large_differences():
    assert verdict(10_000, 4000, 3995).status == "pass"
    assert verdict(10_000, 4000, 3900).status == "fail"
    assert verdict(200, 80, 60).status == "fail"


def test_what_is_not_shown_stands_with_its_interval():
    found = verdict(200, 80, 79).found
    assert found.startswith("pgd100 40.00%, pgd1000 39.50%; n = 200, cifar10, split test; ")
    assert "pgd100 - pgd1000 +0.50 points (-0.9 to +1.9), at most +0.3" in found
    assert ";" not in verdict(10_000, 4000, 3995).found.partition("split test")[2]


def test_without_flags_the_figures_are_compared_as_of_different_images_and_it_is_said():
    paired, unpaired = (verdict(10_000, 4000, 4000, is_kept) for is_kept in (True, False))
    assert paired.status == "pass"
    assert unpaired.status == "too few images"
    assert "(-1.4 to +1.4, as of different images, as which were right was not kept)" in unpaired.found


def test_the_interval_of_unpaired_accuracies_agrees_with_newcombes_example():
    # Statistics in Medicine 17, 1998, p. 876: 56/70 - 48/80 is 0.20, by method 10 from 0.0524 to 0.3339
    found = unpaired_difference(wilson(48, 80), wilson(56, 70))
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert unpaired_difference(Interval(0, 0, 1), Interval(1, 0, 1)).high == 1


def test_zero_gradients_are_counted():
    class Steps(nn.Module):
        def forward(self, images):
            means = images.mean(dim=(2, 3))
            return torch.where(images.mean(dim=(1, 2, 3))[:, None] > 0.5, means, means.round())

    pixels = torch.full((4, 3, 8, 8), 250, dtype=torch.uint8)
    pixels[0] = 30
    verdict = zero_gradients(
        FSRNet(Steps()).eval(), ImageData(pixels, torch.zeros(4, dtype=torch.long), ("a", "b", "c"))
    )
    assert (verdict.status, verdict.found) == ("fail", "25.0% (4.6% - 69.9%) of images; n = 4")


def test_gradients_are_counted_in_batches():
    largest = []

    class Mean(nn.Module):
        def forward(self, images):
            largest.append(len(images))
            return images.mean(dim=(2, 3))

    pixels, labels = np.zeros((600, 3, 4, 4), np.uint8), np.zeros(600, np.int64)
    verdict = zero_gradients(
        FSRNet(Mean()).eval(), ImageData(torch.from_numpy(pixels), torch.from_numpy(labels), "abc")
    )
    assert (sum(largest), max(largest)) == (600, 250)
    assert (verdict.status, verdict.found) == ("pass", "0.0% (0.0% - 0.6%) of images; n = 600")
