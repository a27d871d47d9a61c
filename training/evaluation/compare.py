"""Two runs on the same images: is one really better, or were the images kind?"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from training.evaluation.flags import Booleans
from training.evaluation.protocol import at_bound
from training.evaluation.results import Result
from training.evaluation.runs import Run
from training.evaluation.statistics import Difference, McNemar, mcnemar, paired_difference

LoadFlags = Callable[[Path, Result], Booleans]
"""Run folder, result -> which of its images are right, (n,). Raises DataError where they were not kept."""


class ComparisonError(ValueError):
    """Two runs that cannot be compared; the message says why and the fix."""


class Subject(NamedTuple):
    """What is compared, of whichever runs."""

    name: str
    definition: str
    seed: int
    """Of the attack."""
    n: int
    data_sha256: str


@dataclass(frozen=True)
class Comparison:
    """One attack on the same images for both runs, with the same kind of weights."""

    first: Result
    second: Result
    test: McNemar

    @property
    def name(self) -> str:
        """Of the attack, with its bound where that is not the usual one, and of what answers unless the network."""
        return ", ".join((at_bound(self.first.attack, self.first.epsilon), *_answered_by(self.first)))

    @property
    def subject(self) -> Subject:
        of = self.first
        return Subject(self.name, of.definition, of.seed, of.n, of.data_sha256)

    @property
    def difference(self) -> Difference:
        return paired_difference(self.test, self.first.n)


def compare(first: Run, second: Run, load_flags: LoadFlags) -> list[Comparison]:
    """Everything that was measured for both runs alike: weights, attack, images, whose answers, and attack's seed.

    Raises ComparisonError where there is nothing, and whatever `load_flags` raises.
    """
    found = [
        Comparison(one, other, mcnemar(load_flags(first.path, one), load_flags(second.path, other)))
        for one, other in _pairs(first.results, second.results)
    ]
    if not found:
        raise ComparisonError(
            f"{first.path} and {second.path} have no attack measured alike: {_why(first.results, second.results)}. "
            "Measure both with the same --attacks, --weights, --images, --seed, --epsilon and --restarts"
        )
    return found


def titles(compared: Sequence[Comparison]) -> dict[Subject, str]:
    """Its name for each subject in order, with what tells several of one name and the data apart."""
    subjects = dict.fromkeys(one.subject for one in compared)
    alike = Counter((of.name, of.n, of.data_sha256) for of in subjects)
    data = {one.first.data_sha256: one.first.data for one in compared}
    has_several = len(set(data.values())) > 1

    def title(of: Subject) -> str:
        is_alone = alike[of.name, of.n, of.data_sha256] == 1
        name = of.name if is_alone else f"{of.name} ({of.definition}, seed {of.seed})"
        return f"{name}, {data[of.data_sha256]}" if has_several else name

    return {of: title(of) for of in subjects}


def left_out(first: Run, second: Run) -> Iterator[str]:
    """What was measured for one run alone, in words."""
    for run, other in ((first, second), (second, first)):
        measured = {_alike(result) for result in other.results}
        for result in run.results:
            if _alike(result) not in measured:
                yield f"{run.path}: {_name(result)} on {result.n:,} images, seed {result.seed}"


def _pairs(first: Sequence[Result], second: Sequence[Result]) -> Iterator[tuple[Result, Result]]:
    others = {_alike(result): result for result in second}
    for result in first:
        if _alike(result) in others:
            yield result, others[_alike(result)]


def _alike(result: Result) -> tuple[object, ...]:
    attack = (result.attack, result.definition, result.epsilon, result.seed)
    return result.weights, result.answered_by, *attack, result.n, result.data_sha256


def _why(first: Sequence[Result], second: Sequence[Result]) -> str:
    for one in first:
        for other in second:
            same = (one.weights, one.attack) == (other.weights, other.attack)
            if same and one.data_sha256 != other.data_sha256:
                return f"{_name(one)} is on {one.n:,} images of {one.data} for one, on {other.n:,} others for the other"
    return f"one has {_names(first)}, the other {_names(second)}"


def _names(results: Sequence[Result]) -> str:
    return ", ".join(dict.fromkeys(map(_name, results))) or "nothing"


def _name(result: Result) -> str:
    of_what = ", ".join((result.weights, *_answered_by(result), result.definition))
    return f"{at_bound(result.attack, result.epsilon)} ({of_what})"


def _answered_by(result: Result) -> Iterator[str]:
    if result.answered_by != "network":
        yield result.answered_by
