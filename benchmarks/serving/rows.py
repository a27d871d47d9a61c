"""Results: one named row per figure, with its spread."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from training.pairs import quartiles

HEADER = "| figure | median (quartiles) | wanted | medians behind it |\n|---|---|---|---|"


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
        low, median, high = (_short(value) for value in quartiles(self.values))
        return f"| {self.name} | {median} ({low} - {high}) | {self.wanted} | {self.behind} |"

    @property
    def json(self) -> dict:
        found = quartiles(self.values)._asdict() if self.values else {}
        return {**found, "name": self.name, "values": self.values, "wanted": self.wanted, "behind": self.behind}


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
