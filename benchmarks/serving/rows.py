"""Results: one named row per figure, with its spread."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

HEADER = "| figure | median (quartiles) | wanted | medians behind it |\n|---|---|---|---|"


class Spread(NamedTuple):
    """Of one figure over rounds."""

    low: float
    median: float
    high: float


class Row(NamedTuple):
    """A figure of every round; ratios are of two measurements of the same round, never of two medians."""

    name: str
    values: tuple[float, ...]
    wanted: str = ""
    behind: str = ""
    """Absolute figures, which are of this machine."""

    @property
    def markdown(self) -> str:
        if not self.values:
            return f"| {self.name} | not run | {self.wanted} | {self.behind} |"
        low, median, high = (_short(value) for value in spread(self.values))
        return f"| {self.name} | {median} ({low} - {high}) | {self.wanted} | {self.behind} |"

    @property
    def json(self) -> dict:
        found = spread(self.values)._asdict() if self.values else {}
        return {**found, "name": self.name, "values": self.values, "wanted": self.wanted, "behind": self.behind}


def spread(values: Sequence[float]) -> Spread:
    """Quartiles by interpolation between the values; of a single one, that value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


def ratios(candidate: Sequence[float], reference: Sequence[float]) -> tuple[float, ...]:
    """Round by round."""
    return tuple(one / other for one, other in zip(candidate, reference, strict=True))


def medians(**figures: Sequence[float]) -> str:
    """Absolute medians in words."""
    return ", ".join(
        f"{name.replace('_', ' ')} {_short(statistics.median(values))}" for name, values in figures.items()
    )


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
