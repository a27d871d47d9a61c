"""What a verdict asks of accuracies, and whether so few images can tell: bounds on differences, with intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from training.evaluation.flags import Booleans
from training.evaluation.results import Result
from training.evaluation.statistics import Difference, Interval, mcnemar, paired_difference, unpaired_difference

Outcome = Literal["pass", "fail", "too few images"]

Found = Mapping[str, Result]
"""By `attack` at the epsilon of the test and by `attack@16/255` at any: all on the same images."""
LoadFlags = Callable[[Result], Booleans | None]
"""Which images a result has right, (n,); None where that was not kept."""


@dataclass(frozen=True)
class Bound:
    """`attack` leaves at most `most` more of the images right than `than` does; by itself, at most `most` of them."""

    attack: str
    than: str | None
    most: float

    @property
    def names(self) -> tuple[str, ...]:
        return (self.attack,) if self.than is None else (self.attack, self.than)

    def judged(self, found: Found, load_flags: LoadFlags) -> "Judged":
        """By the 95 % interval: of the difference on each image where flags were kept, else as of different images."""
        more = found[self.attack]
        if self.than is None:
            return Judged(self, Difference(more.accuracy, more.low, more.high), is_paired=True)
        less = found[self.than]
        flags = load_flags(less), load_flags(more)
        if flags[0] is None or flags[1] is None:
            return Judged(self, unpaired_difference(_interval(less), _interval(more)), is_paired=False)
        return Judged(self, paired_difference(mcnemar(flags[0], flags[1]), more.n), is_paired=True)


@dataclass(frozen=True)
class Judged:
    """A bound, and what it was found to be on some images."""

    bound: Bound
    found: Difference
    is_paired: bool

    @property
    def outcome(self) -> Outcome:
        return outcome(self.found, self.bound.most)

    def __str__(self) -> str:
        value, low, high = (100 * part for part in self.found)
        how = "" if self.is_paired else ", as of different images, as which were right was not kept"
        subject = " - ".join(self.bound.names)
        return f"{subject} {value:+.2f} points ({low:+.1f} to {high:+.1f}{how}), at most {100 * self.bound.most:+.1f}"


def outcome(interval: Difference | Interval, most: float) -> Outcome:
    """On which side of the bound the whole 95 % interval lies; images are too few where it holds the bound."""
    if interval.high <= most:
        return "pass"
    return "fail" if interval.low > most else "too few images"


def outcome_of(judged: Sequence[Judged]) -> Outcome:
    """One that fails decides; then one that images are too few for."""
    outcomes = {one.outcome for one in judged}
    return next(outcome for outcome in ("fail", "too few images", "pass") if outcome in outcomes)


def _interval(result: Result) -> Interval:
    return Interval(result.accuracy, result.low, result.high)
