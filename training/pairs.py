"""Two calls timed alternately in one run: pairs, of which the median ratio and its quartiles are reported.

Absolute times are of this machine, ratios travel better.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tqdm import tqdm

Call = Callable[[], object]


class Pair(NamedTuple):
    """Two calls to compare: the ratio is time of `candidate` over time of `reference`."""

    name: str
    candidate: Call
    reference: Call


class Quartiles(NamedTuple):
    """Of one figure over pairs or rounds."""

    low: float
    median: float
    high: float


class Measured(NamedTuple):
    """Seconds of each call, pair by pair."""

    candidate: list[float]
    reference: list[float]

    @property
    def ratio(self) -> Quartiles:
        """Of the pairs' ratios."""
        return quartiles([one / other for one, other in zip(self.candidate, self.reference, strict=True)])

    @property
    def medians(self) -> tuple[float, float]:
        """Seconds of the candidate and of the reference."""
        return statistics.median(self.candidate), statistics.median(self.reference)


def measured(pair: Pair, count: int, wait: Callable[[], None] = lambda: None) -> Measured:
    """`count` pairs, each in the opposite order of the one before; one call of each comes first.

    `wait` returns when the device has done what it was given.
    """
    times: dict[str, list[float]] = {"candidate": [], "reference": []}
    calls = {"candidate": pair.candidate, "reference": pair.reference}
    for call in calls.values():
        timed(call, wait)
    for index in tqdm(range(count), desc=pair.name, leave=False, file=sys.stderr):
        for name in list(calls) if index % 2 else list(calls)[::-1]:
            times[name].append(timed(calls[name], wait))
    return Measured(**times)


def timed(call: Call, wait: Callable[[], None] = lambda: None) -> float:
    """Seconds until the device has done it."""
    wait()
    started = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - started


def quartiles(values: Sequence[float]) -> Quartiles:
    """By interpolation between the values; of a single one, that value."""
    if len(values) == 1:
        return Quartiles(values[0], values[0], values[0])
    return Quartiles(*statistics.quantiles(values, n=4, method="inclusive"))
