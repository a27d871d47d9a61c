"""How sure a measured accuracy is, and a difference between two."""

import math
from collections.abc import Sequence
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest, mannwhitneyu, norm, t

from training.evaluation.flags import Booleans

ROUNDING = 1e-9
"""Of differences of shares."""
ENOUGH_SEEDS = 3
"""Runs from which on a mean and a deviation are given."""


class Interval(NamedTuple):
    """An accuracy with the ends of its 95 % interval, as fractions."""

    accuracy: float
    low: float
    high: float


def wilson(correct: int, n: int) -> Interval:
    """Wilson's score interval for `correct` of `n` (Wilson, JASA 1927)."""
    interval = binomtest(correct, n).proportion_ci(confidence_level=0.95, method="wilson")
    return Interval(correct / n, float(interval.low), float(interval.high))


def area_under_roc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """How often a positive scores higher than a negative, ties counted half: 0.5 is a coin (Mann and Whitney, 1947)."""
    return float(mannwhitneyu(positives, negatives).statistic) / (len(positives) * len(negatives))


class McNemar(NamedTuple):
    """Two classifiers on the same images: how many each alone has right, and how likely so unequal a split is."""

    only_first: int
    only_second: int
    p: float
    """Two-sided, exact."""


def mcnemar(first: Booleans, second: Booleans) -> McNemar:
    """McNemar's exact test of correctness (n,) on the same n images in the same order (Psychometrika 1947).

    Were both equally good, each image that they disagree on would be a fair coin.
    Raises ValueError for different numbers of images.
    """
    if first.shape != second.shape:
        raise ValueError(f"correctness of {len(first)} and of {len(second)} images; expected the same images for both")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    disagreed = only_first + only_second
    return McNemar(only_first, only_second, float(binomtest(only_first, disagreed).pvalue) if disagreed else 1.0)


class Difference(NamedTuple):
    """How much more of the images the second classifier has right, with the ends of its 95 % interval; fractions."""

    value: float
    low: float
    high: float


def paired_difference(test: McNemar, n: int) -> Difference:
    """Of two classifiers on the same `n` images; the interval is Agresti and Min's (Statistics in Medicine 2005).

    That is Wald's for paired images with half an image added to each of the four outcomes.
    """
    total = n + 2
    gained, lost = test.only_second + 0.5, test.only_first + 0.5
    centre = (gained - lost) / total
    half = float(norm.ppf(0.975)) * math.sqrt(gained + lost - total * centre**2) / total
    return Difference((test.only_second - test.only_first) / n, max(centre - half, -1.0), min(centre + half, 1.0))


def unpaired_difference(first: Interval, second: Interval) -> Difference:
    """The same from two accuracies alone, as if on different images; the interval is Newcombe's hybrid score one.

    Statistics in Medicine 1998, method 10. On the same images it is too wide.
    """
    value = second.accuracy - first.accuracy
    below = math.hypot(second.accuracy - second.low, first.high - first.accuracy)
    above = math.hypot(second.high - second.accuracy, first.accuracy - first.low)
    return Difference(value, max(value - below, -1.0), min(value + above, 1.0))


class Spread(NamedTuple):
    """Mean and sample standard deviation of one figure over seeds."""

    mean: float
    deviation: float


def over_seeds(values: Sequence[float]) -> Spread | None:
    """None for fewer than `ENOUGH_SEEDS` values: those are better listed one by one."""
    return Spread(mean(values), stdev(values)) if len(values) >= ENOUGH_SEEDS else None


def mean_difference(values: Sequence[float]) -> Difference:
    """The mean of differences, one per pair of networks, with Student's 95 % interval of it over such pairs."""
    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Difference(mean(values), mean(values) - half, mean(values) + half)


def right_under_all(flags: Sequence[Booleans]) -> Booleans:
    """Images right under every attack, (n,), from the correctness (n,) under each (Eq. 6: a minimum per image).

    Its mean is at most the lowest accuracy among the attacks, and usually less.
    Raises ValueError for no attacks or different numbers of images.
    """
    if len({len(each) for each in flags}) != 1:
        raise ValueError(
            f"correctness of {[len(each) for each in flags]} images; expected one attack or more on the same images"
        )
    return np.logical_and.reduce(flags)
