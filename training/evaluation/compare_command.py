"""The command python -m training.evaluation compare: pairs of runs on the same images, attack by attack."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from training.checkpoint import CheckpointError
from training.evaluation.command_line import tell
from training.evaluation.compare import Comparison, ComparisonError, compare, left_out, titles
from training.evaluation.compare_plot import plot
from training.evaluation.results import Result, load_flags
from training.evaluation.runs import Run, load_run, short_names
from training.evaluation.statistics import mean_difference, over_seeds
from training.source import DataError

MANY = 12
"""Measurements of one run alone that are named."""


@dataclass(frozen=True)
class Arguments:
    """Compare two runs on the images that both were measured on, best and last weights apart; or several such pairs.

    Correctness is paired image by image: the interval is of the difference on the same images (Agresti and Min), and
    p is McNemar's exact one, of a difference at least as large if the two were equally good. A small p says that two
    networks differ, not that two methods do: that takes several seeds. With several attacks looked at, a small p or two
    is to be expected.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """FIRST SECOND [FIRST SECOND ...]: run folders made by python -m training and measured by
    python -m training.evaluation, such as one without and one with FSR, for each of several seeds."""
    out: Path | None = None
    """Folder to write compare.md and a picture of the differences, compare.png, into."""


@dataclass(frozen=True)
class Pair:
    """Two runs and what was measured for both alike."""

    first: Run
    second: Run
    compared: Sequence[Comparison]


def main(args: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(Arguments, prog="python -m training.evaluation compare", args=args)
    tell(lambda: _written(arguments), CheckpointError, ComparisonError, DataError)


def _written(arguments: Arguments) -> list[str]:
    """The report, also in files where they are asked for."""
    pairs = [load_pair(*paths) for paths in _in_pairs(arguments.runs)]
    lines = list(report(pairs))
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "compare.md").write_text("\n".join(lines) + "\n")
        names = short_names(run.path for pair in pairs for run in (pair.first, pair.second))
        labelled = [(f"{names[pair.first.path]} and {names[pair.second.path]}", pair.compared) for pair in pairs]
        plot(labelled, arguments.out / "compare.png")
    return lines


def report(pairs: Sequence[Pair]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "Percent right with 95 % intervals (Wilson), and of the difference (Agresti and Min); p: McNemar, exact,"
    yield "two-sided. Both are over images: they say that two networks differ, not that two methods do."
    for pair in pairs:
        first, second = pair.first, pair.second
        yield ""
        yield f"first: {first.path}, seed {first.config.seed}; second: {second.path}, seed {second.config.seed}."
        for weights in ("best", "last"):
            yield from _table(weights, [one for one in pair.compared if one.first.weights == weights])
        alone = list(left_out(first, second))
        if alone:
            yield ""
            yield "Not compared, as only one run has it:"
            yield from (f"- {line}" for line in alone[:MANY])
            if len(alone) > MANY:
                yield f"- and {len(alone) - MANY} more"
    for weights in ("best", "last"):
        yield from _over_pairs(
            weights, [one for pair in pairs for one in pair.compared if one.first.weights == weights]
        )


def load_pair(first: Path, second: Path) -> Pair:
    """Raises CheckpointError, ComparisonError and DataError."""
    runs = load_run(first), load_run(second)
    return Pair(*runs, compare(*runs, load_flags))


def _in_pairs(runs: Sequence[Path]) -> list[tuple[Path, Path]]:
    if not runs or len(runs) % 2:
        raise ComparisonError(f"{len(runs)} run folders were given; expected pairs: FIRST SECOND [FIRST SECOND ...]")
    return list(zip(runs[::2], runs[1::2], strict=True))


def _table(weights: str, found: Sequence[Comparison]) -> Iterator[str]:
    if not found:
        return
    yield ""
    yield f"| {weights} weights | n | first | second | second - first | only first right | only second right | p |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    names = titles(found)
    for one in found:
        value, low, high = (100 * part for part in one.difference)
        yield (
            f"| {names[one.subject]} | {one.first.n:,} | {_share(one.first)} | {_share(one.second)} "
            f"| {value:+.2f} ({low:+.1f} to {high:+.1f}) | {one.test.only_first:,} | {one.test.only_second:,} "
            f"| {one.test.p:.2g} |"
        )


def _over_pairs(weights: str, compared: Sequence[Comparison]) -> Iterator[str]:
    """What enough pairs were compared by: the mean of their differences, whose interval is over networks."""
    rows = []
    for subject, title in titles(compared).items():
        values = [100 * one.difference.value for one in compared if one.subject == subject]
        if spread := over_seeds(values):
            mean, low, high = mean_difference(values)
            cells = f"{mean:+.2f} ({low:+.1f} to {high:+.1f}) | {spread.deviation:.2f}"
            rows.append(f"| {title} | {subject.n:,} | {len(values)} | {cells} |")
    if rows:
        yield ""
        yield f"| {weights} weights, over pairs | n | pairs | mean of second - first, 95 % (t) | sd |"
        yield "|---|---:|---:|---:|---:|"
        yield from rows


def _share(result: Result) -> str:
    return f"{100 * result.accuracy:.2f} ({100 * result.low:.1f} - {100 * result.high:.1f})"
