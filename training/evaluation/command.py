"""The command python -m training.evaluation: accuracies of a checkpoint under named attacks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from training.checkpoint import CheckpointError, RunConfig, RunFolder
from training.evaluation.arguments import MeasuringArguments
from training.evaluation.command_line import goes_on, tell
from training.evaluation.inspection import check_attacks, check_counts, check_epsilon
from training.evaluation.measure import Job, Network
from training.evaluation.passed_on import passing_on
from training.evaluation.protocol import EPSILON, Budget
from training.evaluation.record import of_clean_images, record, record_worst
from training.evaluation.results import Measurement, Result, forget, kept_result, weights_sha256
from training.evaluation.suite import (
    TRANSFERS,
    CheckpointAttack,
    batch_of,
    definition_of,
    least_queries_of,
    queries_of,
)
from training.models import FSRNet
from training.models.separated import FeatureName
from training.source import DataError

ENSEMBLE: tuple[CheckpointAttack, ...] = ("fgsm", "pgd20", "pgd100", "cw")
"""Eq. 6 of the paper; like its published code, an image that is wrong without attack is wrong."""
ANSWERED_BY: Mapping[FeatureName, str] = {
    "output": "network",
    "robust": "f+ passed on",
    "nonrobust": "f- passed on",
    "recalibrated": "recalibrated f- passed on",
}


@dataclass(frozen=True, kw_only=True)
class Arguments(MeasuringArguments):
    """Measure the accuracy of a checkpoint on clean and on attacked images, in float32, with 95 % intervals.

    Can be stopped and started again: which images were broken is kept in the run folder.
    Other commands, each with its own --help: certify, corruptions, features, maps, tables, figures, compare,
    obfuscation, cost.
    """

    attacks: tuple[CheckpointAttack | Literal["ensemble"], ...] = ("fgsm", "pgd20", "cw")
    """Attacks to run, besides clean images. ensemble: the worst of clean, fgsm, pgd20, pgd100 and cw on each image."""
    queries: int | None = None
    """Of attacks that see answers only, per image; by default what is usual for each."""
    restarts: int = 1
    """Random starts of each gradient attack."""
    random_start: bool = True
    """Whether gradient attacks begin at a random place; the paper's published code begins at the image itself."""
    epsilon: float = EPSILON
    """L-infinity bound, in [0, 1] pixels."""
    compile: bool = False
    """Compile the network with torch.compile: a minute at first, then faster; logits differ in their last digits."""
    source: Path | None = None
    """Run folder of the network that pgd20_transfer, ti_fgsm and di_fgsm are crafted on, by its best weights."""
    feature: FeatureName = "output"
    """What FSR's modules pass on to the rest of the network under attack: f+, f-, recalibrated f-, or as ever f~."""

    @property
    def how_hard(self) -> str:
        """What an ensemble's definition says of its parts where they are not as usual."""
        if not self.random_start:
            return ", no random start"
        return "" if self.restarts == 1 else f", {self.restarts} random starts"

    def budget(self, attack: CheckpointAttack) -> Budget:
        restarts = 1 if attack in TRANSFERS else self.restarts
        return Budget(self.queries or queries_of(attack), restarts, self.random_start)


def main(args: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(Arguments, prog="python -m training.evaluation", args=args)
    tell(lambda: [report(arguments)], CheckpointError, DataError, stopped=goes_on(arguments.again))


def report(arguments: Arguments) -> str:
    """Run the attacks and return the table, with everything needed to repeat it in its first lines.

    Each row is also kept in the run folder as soon as it is measured.
    """
    arguments.check()
    if not arguments.random_start and arguments.restarts > 1:
        raise DataError(
            f"restarts is {arguments.restarts} without random starts, which would all end alike; leave one of the two"
        )
    check_epsilon(arguments.epsilon)
    check_counts(arguments, "queries", "restarts")
    folder = RunFolder(arguments.checkpoint)
    config = folder.config()
    model = folder.load_model(arguments.weights)  # what is wrong with it is better said here than by another process
    if arguments.feature != "output":
        _check_passed_on(model, arguments)
    names = _parts(arguments.attacks)
    check_attacks(names, arguments.checkpoint, config)
    _check_queries(names, arguments.queries)
    if "feature_matching" in names:
        _check_feature_matching(arguments)
    source, crafted_on = _source(names, arguments, config)
    data, data_name = arguments.open_images(config)
    clean = of_clean_images(
        arguments.checkpoint,
        arguments.weights,
        data,
        data_name,
        seed=arguments.seed,
        answered_by=ANSWERED_BY[arguments.feature],
        is_compiled=arguments.compile,
    )
    lines = [
        f"{arguments.checkpoint}: {config.model.description}, "
        f"{arguments.weights} weights, recipe {config.recipe_name}"
        + ("" if clean.answered_by == "network" else f", {clean.answered_by}"),
        f"{data_name}, n = {len(data)}, "
        f"L-infinity epsilon {arguments.epsilon * 255:g}/255, seed {arguments.seed}, float32",
        "",
        f"{'attack':<14}{'accuracy':>10}{'95 % interval':>20}   definition",
    ]
    network = Network(
        arguments.checkpoint, arguments.weights, clean.weights_sha256, arguments.feature, arguments.compile
    )
    asked = _measurements(arguments, names, clean, len(config.classes), crafted_on)
    ensemble = _ensemble(arguments, clean)
    if arguments.again:
        for measurement in (*asked.values(), *ensemble):
            forget(arguments.checkpoint, measurement)
    results: dict[str, Result] = {}
    for attack, measurement in asked.items():
        kept = kept_result(arguments.checkpoint, measurement)
        budget = arguments.budget(attack) if attack else Budget()
        job = Job(network, attack, arguments.epsilon, arguments.seed, budget, source)
        batch = arguments.batch or batch_of(attack, budget)
        result = record(job, data, measurement, batch=batch, processes=arguments.processes)
        results[result.attack] = result
        lines.append(_line(result, is_new=result != kept))
    for measurement in ensemble:
        kept = kept_result(arguments.checkpoint, measurement)
        worst = record_worst(arguments.checkpoint, measurement, [results[name] for name in ("clean", *ENSEMBLE)])
        lines.append(_line(worst, is_new=worst != kept))
    return "\n".join(lines)


def _measurements(
    arguments: Arguments, names: Sequence[CheckpointAttack], clean: Measurement, num_classes: int, crafted_on: str
) -> dict[CheckpointAttack | None, Measurement]:
    """What is measured of each attack, and of none."""
    asked: dict[CheckpointAttack | None, Measurement] = {None: clean}
    for name in names:
        definition = definition_of(name, arguments.budget(name), num_classes, arguments.batch)
        definition += crafted_on if name in TRANSFERS else ""
        asked[name] = replace(clean, attack=name, definition=definition, epsilon=arguments.epsilon)
    return asked


def _ensemble(arguments: Arguments, clean: Measurement) -> list[Measurement]:
    """What is measured of the ensemble, if it is asked for."""
    definition = f"right under each of {', '.join(('clean', *ENSEMBLE))}{arguments.how_hard}"
    ensemble = replace(clean, attack="ensemble", definition=definition, epsilon=arguments.epsilon)
    return [ensemble] if "ensemble" in arguments.attacks else []


def _parts(attacks: Sequence[CheckpointAttack | Literal["ensemble"]]) -> list[CheckpointAttack]:
    """The attacks to run, each once; those of the ensemble for `ensemble`."""
    names: list[CheckpointAttack] = []
    for attack in attacks:
        names += ENSEMBLE if attack == "ensemble" else (attack,)
    return list(dict.fromkeys(names))


def _check_passed_on(model: FSRNet, arguments: Arguments) -> None:
    try:
        passing_on(model, arguments.feature)
    except ValueError as error:
        raise DataError(f"feature is {arguments.feature!r}: {error}") from error


def _check_queries(names: Sequence[CheckpointAttack], queries: int | None) -> None:
    """Raises DataError where an attack could not take a single step: what it leaves right is no robustness."""
    for name in names:
        least = least_queries_of(name)
        if queries is not None and queries < least:
            raise DataError(f"queries is {queries}; expected {least:,} or more, the price of one step of {name}")


def _check_feature_matching(arguments: Arguments) -> None:
    """Raises DataError for options that it would pass over."""
    if arguments.restarts > 1 or not arguments.random_start:
        raise DataError(
            "feature_matching takes one random start, whatever --restarts and --random-start say; expected neither. "
            "Measure it by itself"
        )
    if arguments.feature != "output":
        raise DataError(
            f"feature is {arguments.feature!r}, and feature_matching matches the output of FSR alone; expected "
            "'output'. Leave that attack out"
        )


def _source(names: Sequence[CheckpointAttack], arguments: Arguments, config: RunConfig) -> tuple[Network | None, str]:
    """The network that transfer attacks are crafted on, and what definitions say of it; none without such attacks."""
    transfers = [name for name in names if name in TRANSFERS]
    if not transfers:
        return None, ""
    if arguments.source is None:
        raise DataError(f"{', '.join(transfers)} need --source: the run folder of the network they are crafted on")
    folder = RunFolder(arguments.source)
    of = folder.config()
    folder.load_model("best")
    if (of.classes, of.image_shape) != (config.classes, config.image_shape):
        raise DataError(f"the source {arguments.source} has other classes or image sizes than {arguments.checkpoint}")
    source = Network(arguments.source, "best", weights_sha256(arguments.source, "best"))
    trained = f"{of.model.description}, objective {of.recipe.objective}, weights {source.weights_sha256[:12]}"
    return source, f", crafted on {trained}"


def _line(result: Result, *, is_new: bool) -> str:
    interval = f"{result.low:>11.2%} - {result.high:.2%}"
    when = "" if is_new else f"; measured {result.measured}"
    return f"{result.attack:<14}{result.accuracy:>10.2%}{interval}   {result.definition}{when}"
