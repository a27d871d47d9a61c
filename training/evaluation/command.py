"""The command python -m training.evaluation: accuracies of a checkpoint under named attacks."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Literal

import torch
import tyro
from tqdm import tqdm

from training.checkpoint import CheckpointError, RunConfig, RunFolder, Weights
from training.data import ImageData, load_images
from training.evaluation.flags import Booleans
from training.evaluation.measure import Job, Network, measure
from training.evaluation.passed_on import passing_on
from training.evaluation.protocol import EPSILON, Budget
from training.evaluation.results import Measurement, Result, open_flags, save_result, weights_sha256
from training.evaluation.separated import FeatureName
from training.evaluation.statistics import right_under_all, wilson
from training.evaluation.suite import NEED_FSR, TRANSFERS, CheckpointAttack, batch_of, definition_of, queries_of
from training.models import FSRNet
from training.source import DataError

ENSEMBLE: tuple[CheckpointAttack, ...] = ("fgsm", "pgd20", "pgd100", "cw")
"""Eq. 6 of the paper; like its published code, an image that is wrong without attack is wrong."""
ANSWERED_BY: Mapping[FeatureName, str] = {
    "output": "network",
    "robust": "f+ passed on",
    "nonrobust": "f- passed on",
    "recalibrated": "recalibrated f- passed on",
}


@dataclass(frozen=True)
class Arguments:
    """Measure the accuracy of a checkpoint on clean and on attacked images, in float32, with 95 % intervals.

    Can be stopped and started again: which images were broken is kept in the run folder.
    """

    checkpoint: tyro.conf.Positional[Path]
    """Run folder made by python -m training."""
    data: str | None = None
    """Hugging Face id or folder; by default the data it was trained on."""
    attacks: tuple[CheckpointAttack | Literal["ensemble"], ...] = ("fgsm", "pgd20", "cw")
    """Attacks to run, besides clean images. ensemble: the worst of clean, fgsm, pgd20, pgd100 and cw on each image."""
    queries: int | None = None
    """Of attacks that see answers only, per image; by default what is usual for each."""
    restarts: int = 1
    """Random starts of each gradient attack."""
    random_start: bool = True
    """Whether gradient attacks begin at a random place; the paper's published code begins at the image itself."""
    split: str = "test"
    images: int | None = None
    """Use only so many images, spread evenly over the split."""
    epsilon: float = EPSILON
    """L-infinity bound, in [0, 1] pixels."""
    weights: Weights = "best"
    seed: int = 0
    """Of all that is random in the attacks."""
    batch: int | None = None
    """Images at a time, and between two saves; by default fewer for attacks that take long."""
    processes: int = 1
    """That share the batches, each with its part of the cores, and the GPUs in turn."""
    source: Path | None = None
    """Run folder of the network that pgd20_transfer, ti_fgsm and di_fgsm are crafted on, by its best weights."""

    feature: FeatureName = "output"
    """What FSR's modules pass on to the rest of the network under attack: f+, f-, recalibrated f-, or as ever f~."""

    def budget(self, attack: CheckpointAttack) -> Budget:
        restarts = 1 if attack in TRANSFERS else self.restarts
        return Budget(self.queries or queries_of(attack), restarts, self.random_start)


def main() -> None:
    arguments = tyro.cli(Arguments, prog="python -m training.evaluation")
    try:
        print(report(arguments))
    except (CheckpointError, DataError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; the same command goes on from here")


def report(arguments: Arguments) -> str:
    """Run the attacks and return the table, with everything needed to repeat it in its first lines.

    Each row is also kept in the run folder as soon as it is measured.
    """
    folder = RunFolder(arguments.checkpoint)
    config = folder.config()
    model = folder.load_model(arguments.weights)  # what is wrong with it is better said here than by another process
    if arguments.feature != "output":
        _check_passed_on(model, arguments)
    names = _parts(arguments.attacks)
    _check_fsr(names, arguments, config)
    source, crafted_on = _source(names, arguments, config)
    data = _images(arguments, config)
    data_name = config.data_name if arguments.data in (None, config.data) else str(arguments.data)
    clean = Measurement(
        weights=arguments.weights,
        weights_sha256=weights_sha256(arguments.checkpoint, arguments.weights),
        attack="clean",
        definition="images as they are",
        epsilon=0.0,
        n=len(data),
        data=f"{data_name}, split {arguments.split}",
        data_sha256=data.sha256,
        seed=arguments.seed,
        runtime=f"torch {torch.__version__}",
        precision="fp32",
        answered_by=ANSWERED_BY[arguments.feature],
    )
    lines = [
        f"{arguments.checkpoint}: {config.model.name}{' with FSR' if config.model.fsr else ''}, "
        f"{arguments.weights} weights, recipe {config.recipe_name}"
        + ("" if clean.answered_by == "network" else f", {clean.answered_by}"),
        f"{data_name}, split {arguments.split}, n = {len(data)}, "
        f"L-infinity epsilon {arguments.epsilon * 255:g}/255, seed {arguments.seed}, float32",
        "",
        f"{'attack':<14}{'accuracy':>10}{'95 % interval':>20}   definition",
    ]
    flags: dict[str, Booleans] = {}

    def keep(measurement: Measurement, correct: Booleans, seconds: float) -> None:
        flags[measurement.attack] = correct
        result = _result(measurement, correct, seconds)
        save_result(arguments.checkpoint, result)
        lines.append(_line(result))

    keep(clean, *_measured(clean, None, None, arguments, data))
    for name in names:
        definition = definition_of(name, arguments.budget(name)) + (crafted_on if name in TRANSFERS else "")
        attacked = replace(clean, attack=name, definition=definition, epsilon=arguments.epsilon)
        keep(attacked, *_measured(attacked, name, source, arguments, data))
    if "ensemble" in arguments.attacks:
        parts = ("clean", *ENSEMBLE)
        definition = f"right under each of {', '.join(parts)}"
        worst = right_under_all([flags[name] for name in parts])
        ensemble = replace(clean, attack="ensemble", definition=definition, epsilon=arguments.epsilon)
        open_flags(arguments.checkpoint, ensemble).write(slice(0, len(data)), worst, 0.0)
        keep(ensemble, worst, 0.0)
    return "\n".join(lines)


def _parts(attacks: Sequence[CheckpointAttack | Literal["ensemble"]]) -> list[CheckpointAttack]:
    """The attacks to run, each once; those of the ensemble for `ensemble`."""
    names: list[CheckpointAttack] = []
    for attack in attacks:
        names += ENSEMBLE if attack == "ensemble" else (attack,)
    return list(dict.fromkeys(names))


def _images(arguments: Arguments, config: RunConfig) -> ImageData:
    """The images to attack. Raises DataError for arguments out of range and images of other classes."""
    if not 0 < arguments.epsilon <= 1:
        raise DataError(f"epsilon is {arguments.epsilon}; expected a bound above 0 and at most 1 ([0, 1] pixels)")
    for name in ("queries", "restarts", "batch", "processes"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise DataError(f"{name} is {value}; expected 1 or more")
    data = load_images(arguments.data or config.data, arguments.split, config.image_shape, config.jpeg_scale)
    if data.classes != config.classes:
        raise DataError(
            f"the data has the {len(data.classes)} classes {', '.join(data.classes[:10])}; {arguments.checkpoint} was "
            f"trained on the {len(config.classes)} classes {', '.join(config.classes[:10])}"
        )
    if arguments.images is None:
        return data
    if not 0 < arguments.images <= len(data):
        raise DataError(f"images is {arguments.images}; expected 1 to {len(data)}")
    return data.spread(arguments.images)


def _check_passed_on(model: FSRNet, arguments: Arguments) -> None:
    try:
        passing_on(model, arguments.feature)
    except ValueError as error:
        raise DataError(f"feature is {arguments.feature!r}: {error}") from error


def _check_fsr(names: Sequence[CheckpointAttack], arguments: Arguments, config: RunConfig) -> None:
    need = [name for name in names if name in NEED_FSR]
    if need and not config.model.fsr:
        raise DataError(f"{', '.join(need)} attack the masks and heads of FSR, which {arguments.checkpoint} has not")


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
    trained = f"{of.model.name}, objective {of.recipe.objective}, weights {source.weights_sha256[:12]}"
    return source, f", crafted on {trained}"


def _measured(
    measurement: Measurement,
    attack: CheckpointAttack | None,
    source: Network | None,
    arguments: Arguments,
    data: ImageData,
) -> tuple[Booleans, float]:
    """Which images keep their label, and the seconds it took, those of earlier parts included."""
    flags = open_flags(arguments.checkpoint, measurement)
    network = Network(arguments.checkpoint, arguments.weights, measurement.weights_sha256, arguments.feature)
    budget = arguments.budget(attack) if attack else Budget()
    job = Job(network, attack, arguments.epsilon, arguments.seed, budget, source)
    batch = arguments.batch or batch_of(attack, budget)
    known = int(flags.is_known.sum())
    with tqdm(total=len(data), initial=known, desc=measurement.attack, unit="img", leave=False) as bar:
        measure(job, data, flags, batch=batch, processes=arguments.processes, progress=bar.update)
    return flags.correct, flags.seconds


def _result(measurement: Measurement, correct: Booleans, seconds: float) -> Result:
    interval = wilson(int(correct.sum()), len(correct))
    return Result(
        **asdict(measurement),
        **interval._asdict(),
        seconds=round(seconds, 1),
        measured=date.today().isoformat(),
    )


def _line(result: Result) -> str:
    interval = f"{result.low:>11.2%} - {result.high:.2%}"
    return f"{result.attack:<14}{result.accuracy:>10.2%}{interval}   {result.definition}"
