"""The command python -m training.evaluation corruptions: accuracy on images that are worse, turned or shifted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import tyro

from training.checkpoint import CheckpointError, RunFolder
from training.evaluation.arguments import MeasuringArguments
from training.evaluation.changes import CHANGES, USUAL_KINDS, Kind, mean_over_severities, names_of
from training.evaluation.command_line import goes_on, tell
from training.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from training.evaluation.measure import Job, Network
from training.evaluation.protocol import Budget
from training.evaluation.record import of_clean_images, record
from training.evaluation.results import Measurement, Result, forget, kept_result
from training.source import DataError

FEW_VERSIONS = 10
"""With more versions of each image batches are small, so that little is lost by an interruption."""


@dataclass(frozen=True, kw_only=True)
class Arguments(MeasuringArguments):
    """Measure the accuracy of a checkpoint under common corruptions and rotations, which no attacker chooses.

    Corruptions have the constants of CIFAR-10-C at severities 1 to 5, rotations the limits of Engstrom et al. (ICML
    2019). Can be stopped and started again: which images were right is kept in the run folder.
    """

    kinds: tuple[Kind, ...] = USUAL_KINDS
    """What is done to the images, besides nothing. rotation_grid tries 775 rotations and shifts on each image."""


def main(args: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(Arguments, prog="python -m training.evaluation corruptions", args=args)
    tell(lambda: report(arguments), CheckpointError, DataError, stopped=goes_on(arguments.again))


def report(arguments: Arguments) -> Iterator[str]:
    """Measure, and give lines of Markdown. Raises CheckpointError and DataError."""
    arguments.check()
    folder = RunFolder(arguments.checkpoint)
    config = folder.config()
    folder.load_model(arguments.weights)  # what is wrong with it is better said here than by another process
    data, data_name = arguments.open_images(config)
    clean = of_clean_images(arguments.checkpoint, arguments.weights, data, data_name, seed=arguments.seed)
    network = Network(arguments.checkpoint, arguments.weights, clean.weights_sha256)

    names = [name for kind in dict.fromkeys(arguments.kinds) for name in names_of(kind)]
    asked: dict[str | None, Measurement] = {None: clean}
    asked |= {name: replace(clean, attack=name, definition=CHANGES[name].definition) for name in names}
    if arguments.again:
        for measurement in asked.values():
            forget(arguments.checkpoint, measurement)
    kept = [one for one in (kept_result(arguments.checkpoint, measurement) for measurement in asked.values()) if one]

    def measured(name: str | None) -> Result:
        job = Job(network, None, 0.0, arguments.seed, Budget(), change=name)
        many = name is not None and len(CHANGES[name].versions) > FEW_VERSIONS
        batch = arguments.batch or (25 if many else 250)
        return record(job, data, asked[name], batch=batch, processes=arguments.processes)

    unchanged = measured(None)
    found = {name: measured(name) for name in names}
    yield f"{arguments.checkpoint}, {arguments.weights} weights; {data_name}, n = {len(data)}, seed {arguments.seed}"
    yield f"clean: {_share(unchanged)} % with the 95 % interval (Wilson)"
    if kept:
        days = sorted({result.measured for result in kept})
        yield f"{len(kept)} of {len(asked)} figures were measured before, on {', '.join(days)}"
    yield from _corruptions([kind for kind in CORRUPTIONS if kind in arguments.kinds], found)
    yield from _rotations([found[kind] for kind in arguments.kinds if kind in found])


def _corruptions(kinds: Sequence[Kind], found: Mapping[str, Result]) -> Iterator[str]:
    if not kinds:
        return
    accuracies = {name: result.accuracy for name, result in found.items()}
    yield ""
    yield f"| severity | {' | '.join(map(str, SEVERITIES))} | mean |"
    yield "|---|" + "---:|" * (len(SEVERITIES) + 1)
    for kind in kinds:
        cells = [*(accuracies[name] for name in names_of(kind)), mean_over_severities(accuracies, kind)]
        yield f"| {kind} | {' | '.join(f'{100 * cell:.2f}' for cell in cells)} |"


def _rotations(results: Sequence[Result]) -> Iterator[str]:
    if not results:
        return
    yield ""
    yield "| rotations | accuracy with 95 % interval | definition |"
    yield "|---|---:|---|"
    for result in results:
        yield f"| {result.attack} | {_share(result)} | {result.definition} |"


def _share(result: Result) -> str:
    return f"{100 * result.accuracy:.2f} ({100 * result.low:.1f} - {100 * result.high:.1f})"
