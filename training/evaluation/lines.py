"""What our runs have to say in a table: one line per run and weights, and one over all seeds of a run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import get_args

from training.checkpoint import Weights
from training.evaluation.cost import size_of_network
from training.evaluation.protocol import EPSILON, GRADIENT_ATTACKS, Budget, is_bounded_by
from training.evaluation.results import Result
from training.evaluation.runs import Run, data_set_of
from training.evaluation.statistics import Spread, over_seeds
from training.evaluation.suite import has_usual_queries
from training.evaluation.tables import SIZE, TIME, Measure, Row, Table
from training.models import BACKBONES

PAPER_TRAINING_IMAGES, PAPER_TEST_IMAGES = 50_000, 10_000
"""Of CIFAR-10, whose times section 4.4 gives."""


@dataclass(frozen=True)
class Figure:
    """A figure of ours, in the unit of its measure."""

    value: float
    definition: str
    """The attack in words, or how else it came about."""
    low: float | None = None
    high: float | None = None
    n: int | None = None
    data: str = ""
    """What it was measured on, with its split."""
    images: str = ""
    """SHA-256 of those images."""
    seed: int | None = None
    """Of the attack."""


@dataclass(frozen=True)
class Line:
    """Figures by measure of one run with its best or its last weights, in one row; no run for a bare network."""

    row: Row
    figures: Mapping[str, Figure]
    run: Run | None = None
    weights: Weights | None = None


@dataclass(frozen=True)
class SeedLine:
    """Spreads by measure over the runs of one row that differ in their seed alone, three or more."""

    row: Row
    spreads: Mapping[str, Spread]
    weights: Weights
    seeds: tuple[int, ...]


def lines_of(table: Table, runs: Sequence[Run]) -> list[Line]:
    """In the order of the rows, then of the runs; a row that nothing was measured for has none."""
    if table.measures == SIZE:
        return [_size_line(row) for row in table.rows]
    return [
        Line(row, figures, run, weights)
        for row in table.rows
        for run in runs
        if is_in(run, row)
        for weights in get_args(Weights)
        if (figures := _figures(table.measures, row, run, weights))
    ]


def is_in(run: Run, row: Row) -> bool:
    """Whether the run is trained as the row says, on its data set and backbone."""
    return (run.data_set, run.config.model.name) == (row.data_set, row.backbone) and row.is_method(run.config)


def seed_lines(lines: Sequence[Line]) -> list[SeedLine]:
    """For each three or more lines of runs that differ in their seed alone; figures on the same images and attack.

    Of runs that are trained to the end.
    """
    groups: list[list[Line]] = []
    for line in lines:
        group = next((group for group in groups if _repeats(line, group[0])), None)
        if group is None:
            groups.append([line])
        else:
            group.append(line)
    return [found for group in groups if (found := _seed_line(group)) is not None]


def _repeats(line: Line, other: Line) -> bool:
    if line.run is None or other.run is None or not (line.run.is_whole and other.run.is_whole):
        return False
    return (line.row, line.weights) == (other.row, other.weights) and (
        line.run.but_for_the_seed == other.run.but_for_the_seed
    )


def _seed_line(group: Sequence[Line]) -> SeedLine | None:
    by_seed = {line.run.config.seed: line for line in group if line.run is not None}
    spreads = {}
    for measure in group[0].figures:
        figures = [line.figures[measure] for line in by_seed.values() if measure in line.figures]
        spread = over_seeds([figure.value for figure in figures])
        if len(figures) == len(by_seed) and spread and len({(one.images, one.definition) for one in figures}) == 1:
            spreads[measure] = spread
    if not spreads or group[0].weights is None:
        return None
    return SeedLine(group[0].row, spreads, group[0].weights, tuple(sorted(by_seed)))


def _figures(measures: Sequence[Measure], row: Row, run: Run, weights: Weights) -> dict[str, Figure]:
    if tuple(measures) == TIME:
        found: Iterator[tuple[Measure, Figure | None]] = zip(measures, _times(run, weights), strict=True)
    else:
        found = ((measure, _accuracy(measure, row, run, weights)) for measure in measures)
    return {measure.name: figure for measure, figure in found if figure is not None}


def _accuracy(measure: Measure, row: Row, run: Run, weights: Weights) -> Figure | None:
    """Of several on the most images, of the run's own data before others of that name, under the strongest attack."""
    fitting = _fitting(run, weights, measure.attack, row.answered_by, measure.epsilon)
    result = max(fitting, key=lambda one: (one.n, one.data_name == run.config.data_name, -one.accuracy), default=None)
    if result is None:
        return None
    return Figure(
        value=100 * result.accuracy,
        low=100 * result.low,
        high=100 * result.high,
        n=result.n,
        definition=result.definition,
        data=result.data,
        images=result.data_sha256,
        seed=result.seed,
    )


def _fitting(
    run: Run, weights: Weights, attack: str | None, answered_by: Sequence[str], epsilon: float = EPSILON
) -> list[Result]:
    """On test images of the run's own data set, by attacks of the usual queries or more; the latest first."""
    return [
        result
        for result in reversed(run.results)
        if (result.weights, result.attack) == (weights, attack)
        and result.answered_by in answered_by
        and is_bounded_by(epsilon, result.epsilon)
        and has_usual_queries(result.attack, result.definition)
        and _is_test_of(result, run)
    ]


def _is_test_of(result: Result, run: Run) -> bool:
    return result.is_on_test_images and (
        result.data_name == run.config.data_name or data_set_of(result.data_name) == run.data_set
    )


def _times(run: Run, weights: Weights) -> tuple[Figure | None, Figure | None]:
    """Seconds of a training epoch, told with the last weights, and of PGD-20, both scaled to the paper's images."""
    epoch = _epoch_time(run) if weights == "last" else None
    usual = GRADIENT_ATTACKS["pgd20"].definition(Budget())
    timed = [one for one in _fitting(run, weights, "pgd20", ("network",)) if one.definition == usual]
    pgd20 = max(timed, key=lambda one: one.n, default=None)
    if pgd20 is None:
        return epoch, None
    definition = f"seconds of all processes for {pgd20.n:,} images scaled to {PAPER_TEST_IMAGES:,}, {pgd20.runtime}"
    return epoch, Figure(pgd20.seconds * PAPER_TEST_IMAGES / pgd20.n, definition, n=pgd20.n, data=pgd20.data)


def _epoch_time(run: Run) -> Figure | None:
    """Of the epochs that attack images of full size."""
    recipe = run.config.recipe
    speeds = [
        line["train_images_per_second"]
        for line in run.history
        if "train_images_per_second" in line
        and recipe.scale(line["epoch"]) == 1
        and not recipe.is_natural(line["epoch"])
    ]
    if not speeds:
        return None
    definition = f"{PAPER_TRAINING_IMAGES:,} images at the median speed of {len(speeds)} epochs, attack {recipe.attack}"
    return Figure(PAPER_TRAINING_IMAGES / median(speeds), definition)


def _size_line(row: Row) -> Line:
    size = size_of_network(row.backbone, fsr=row.method == "FSR")
    definition = f"counted, width {BACKBONES[row.backbone].width}"
    values = (size.parameters / 1e6, size.flops / 1e9)
    figures = {measure.name: Figure(value, definition) for measure, value in zip(SIZE, values, strict=True)}
    return Line(row, figures)
