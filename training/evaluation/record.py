"""One measurement from its first batch to the figure in the run folder."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from training.checkpoint import Weights
from training.data import ImageData
from training.device import pick_device
from training.environment import environment
from training.evaluation.flags import Booleans
from training.evaluation.measure import Job, measure
from training.evaluation.results import (
    Measurement,
    Result,
    kept_result,
    load_flags,
    open_flags,
    save_result,
    weights_sha256,
)
from training.evaluation.statistics import right_under_all, wilson
from training.processes import ALONE


def of_clean_images(
    checkpoint: Path,
    weights: Weights,
    data: ImageData,
    data_name: str,
    *,
    seed: int,
    answered_by: str = "network",
    is_compiled: bool = False,
) -> Measurement:
    """What is measured without any attack: the others are this with another attack, definition and epsilon."""
    return Measurement(
        weights=weights,
        weights_sha256=weights_sha256(checkpoint, weights),
        attack="clean",
        definition="images as they are",
        epsilon=0.0,
        n=len(data),
        data=data_name,
        data_sha256=data.sha256,
        seed=seed,
        runtime=f"torch {torch.__version__}{', compiled' if is_compiled else ''}",
        precision="fp32",
        answered_by=answered_by,
    )


def record(job: Job, data: ImageData, measurement: Measurement, *, batch: int, processes: int) -> Result:
    """Measure what is not known yet of `data`, and keep the result in the run folder of the job's network.

    What was finished before stays as it is, with its runtime and day.
    """
    checkpoint = job.network.checkpoint
    flags = open_flags(checkpoint, measurement)
    known = int(flags.is_known.sum())
    if known == len(data) and (finished := kept_result(checkpoint, measurement)):
        return finished
    code = code_of(measurement.attack)  # before hours in which the checkout may change
    with tqdm(total=len(data), initial=known, desc=measurement.attack, unit="img", leave=False) as bar:
        measure(job, data, flags, batch=batch, processes=processes, progress=bar.update)
    return keep(checkpoint, measurement, flags.correct, flags.seconds, code)


def record_worst(checkpoint: Path, measurement: Measurement, parts: Sequence[Measurement]) -> Result:
    """Keep which images are right under each of `parts`, which were measured before; as it is where that is known."""
    worst = right_under_all([load_flags(checkpoint, part) for part in parts])
    flags = open_flags(checkpoint, measurement)
    if (flags.is_known & (flags.correct == worst)).all() and (finished := kept_result(checkpoint, measurement)):
        return finished
    flags.write(slice(0, len(worst)), worst, 0.0)
    return keep(checkpoint, measurement, worst, 0.0, code_of(measurement.attack))


class Code(NamedTuple):
    """What a result is made by."""

    versions: dict[str, str]
    commit: str | None


def code_of(attack: str) -> Code:
    """Of this process, for the record; of an attack that is another package's too."""
    noted = environment(pick_device(), ALONE)
    versions = {"fsr-serve": noted["versions"]["fsr-serve"]}
    if attack == "autoattack":
        versions["pyautoattack"] = version("pyautoattack")
    return Code({name: one for name, one in versions.items() if one is not None}, noted["commit"])


def keep(checkpoint: Path, measurement: Measurement, correct: Booleans, seconds: float, code: Code) -> Result:
    """The share of `correct`, (n,), with its interval, added to evaluation.json. `seconds`: of all parts."""
    result = Result(
        **asdict(measurement),
        **wilson(int(correct.sum()), len(correct))._asdict(),
        seconds=round(seconds, 1),
        measured=date.today().isoformat(),
        **code._asdict(),
    )
    save_result(checkpoint, result)
    return result
