"""The command python -m training.evaluation compare: two runs on the same images, attack by attack."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from training.checkpoint import CheckpointError
from training.evaluation.compare import Comparison, ComparisonError, compare, left_out
from training.evaluation.results import Result, load_flags
from training.evaluation.runs import load_run
from training.source import DataError


@dataclass(frozen=True)
class Arguments:
    """Compare two runs on the images that both were measured on, best and last weights apart.

    Correctness is paired image by image: p is McNemar's exact one, of a difference at least as large if the two were
    equally good. With several attacks looked at, a small p or two is to be expected.
    """

    first: tyro.conf.Positional[Path]
    """Run folder made by python -m training and measured by python -m training.evaluation."""
    second: tyro.conf.Positional[Path]
    """Another, measured on the same images."""


def main(args: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(Arguments, prog="python -m training.evaluation compare", args=args)
    try:
        for line in report(arguments):
            print(line)
    except (CheckpointError, ComparisonError, DataError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped")


def report(arguments: Arguments) -> Iterator[str]:
    """Lines of Markdown. Raises CheckpointError, ComparisonError and DataError."""
    first, second = load_run(arguments.first), load_run(arguments.second)
    found = compare(first, second, load_flags)
    yield f"first: {first.path}, seed {first.config.seed}; second: {second.path}, seed {second.config.seed}."
    yield "Percent right with 95 % intervals (Wilson); p: McNemar, exact, two-sided."
    for weights in ("best", "last"):
        yield from _table(weights, [one for one in found if one.first.weights == weights])
    alone = list(left_out(first, second))
    if alone:
        yield ""
        yield "Not compared, as only one run has it:"
        yield from (f"- {line}" for line in alone)


def _table(weights: str, found: Sequence[Comparison]) -> Iterator[str]:
    if not found:
        return
    yield ""
    yield f"| {weights} weights | n | first | second | second - first | only first right | only second right | p |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for one in found:
        first, second, test = one.first, one.second, one.test
        name = first.attack if first.answered_by == "network" else f"{first.attack}, {first.answered_by}"
        yield (
            f"| {name} | {first.n:,} | {_share(first)} | {_share(second)} "
            f"| {100 * (second.accuracy - first.accuracy):+.2f} | {test.only_first:,} | {test.only_second:,} "
            f"| {test.p:.2g} |"
        )


def _share(result: Result) -> str:
    return f"{100 * result.accuracy:.2f} ({100 * result.low:.1f} - {100 * result.high:.1f})"
