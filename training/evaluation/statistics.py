"""How sure a measured accuracy is."""

from typing import NamedTuple

from scipy.stats import binomtest


class Interval(NamedTuple):
    """An accuracy with the ends of its 95 % interval, as fractions."""

    accuracy: float
    low: float
    high: float


def wilson(correct: int, n: int) -> Interval:
    """Wilson's score interval for `correct` of `n` (Wilson, JASA 1927)."""
    interval = binomtest(correct, n).proportion_ci(confidence_level=0.95, method="wilson")
    return Interval(correct / n, float(interval.low), float(interval.high))
