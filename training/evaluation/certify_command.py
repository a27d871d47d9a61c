"""The command python -m training.evaluation certify: accuracy that no L2 perturbation of some size can take away."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import tyro
from tqdm import tqdm

from training.checkpoint import CheckpointError, RunFolder
from training.data import ImageData
from training.device import pick_device
from training.evaluation.arguments import RunArguments
from training.evaluation.command_line import goes_on, tell
from training.evaluation.flags import FlagsFile
from training.evaluation.inspection import check_counts, spread
from training.evaluation.record import code_of, keep, of_clean_images
from training.evaluation.results import forget, kept_result, open_flags
from training.evaluation.smoothing import Smoothing, certify
from training.models import FSRNet
from training.source import DataError

IMAGES = 100
"""Each takes as long as an attack of thousands of queries."""


@dataclass(frozen=True, kw_only=True)
class Arguments(RunArguments):
    """Certify a checkpoint by randomized smoothing: which images no L2 perturbation up to some radius makes wrong.

    The smoothed network asks this one about many noisy copies of each image. It is meant for networks trained on such
    noise, --objective gaussian --sigma; others answer noise at random. Can be stopped and started again.
    """

    sigma: float = 0.25
    """Deviation of the noise, in [0, 1] pixels: that of the training."""
    radii: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """L2, in [0, 1] pixels."""
    samples: int = 10_000
    """Noisy copies of each image; a certificate can reach sigma times 3.2 with 10,000, 3.8 with 100,000."""
    alpha: float = 0.001
    """Probability that a certificate is wrong."""
    images: int | None = None
    """Use only so many images, spread evenly over the split; by default 100, or all of fewer."""
    batch: int = 1_000
    """Noisy copies at a time."""
    again: bool = False
    """Measure anew what was measured before. To go on after an interruption, leave it out."""

    @property
    def smoothing(self) -> Smoothing:
        return Smoothing(self.sigma, samples=self.samples, alpha=self.alpha)


def main(args: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(Arguments, prog="python -m training.evaluation certify", args=args)
    tell(lambda: report(arguments), CheckpointError, DataError, stopped=goes_on(arguments.again))


def report(arguments: Arguments) -> Iterator[str]:
    """Certify, and give lines of Markdown. Raises CheckpointError and DataError."""
    _check(arguments)
    folder = RunFolder(arguments.checkpoint)
    data, data_name = arguments.open_data(folder.config())
    data = spread(data, min(IMAGES, len(data)) if arguments.images is None else arguments.images, "images")
    model, device = folder.load_model(arguments.weights).requires_grad_(False), pick_device()
    device.place_model(model)
    clean = of_clean_images(arguments.checkpoint, arguments.weights, data, data_name, seed=arguments.seed)
    definition = arguments.smoothing.definition
    asked = {
        radius: replace(clean, attack=f"certified_l2_{radius:g}", definition=f"{definition}; right within {radius:g}")
        for radius in sorted(set(arguments.radii))
    }
    if arguments.again:
        for measurement in asked.values():
            forget(arguments.checkpoint, measurement)
    kept = {radius: kept_result(arguments.checkpoint, measurement) for radius, measurement in asked.items()}
    found = {radius: result for radius, result in kept.items() if result is not None}
    if len(found) < len(asked):
        files = {radius: open_flags(arguments.checkpoint, measurement) for radius, measurement in asked.items()}
        code = code_of("smoothing")
        _fill(list(files.items()), lambda index: _certify(arguments, model, data, index))
        found = {
            radius: keep(arguments.checkpoint, asked[radius], flags.correct, flags.seconds, code)
            for radius, flags in files.items()
        }
    yield f"{arguments.checkpoint}, {arguments.weights} weights; {data_name}, n = {len(data)}, seed {arguments.seed}"
    yield definition
    yield ""
    yield "| L2 radius | certified accuracy with 95 % interval (Wilson) |"
    yield "|---:|---:|"
    for radius, result in found.items():
        yield f"| {radius:g} | {100 * result.accuracy:.2f} ({100 * result.low:.1f} - {100 * result.high:.1f}) |"


def _certify(arguments: Arguments, model: FSRNet, data: ImageData, index: int) -> float:
    """The radius within which the image keeps its label, below 0 where it has another one or none."""
    image = pick_device().place(data.pixels[index]).float() / 255
    # a stream of its own: it does not matter which images were certified before
    seed = np.random.SeedSequence((arguments.seed, index)).generate_state(1)[0]
    found = certify(model, image, arguments.smoothing, torch.Generator().manual_seed(int(seed)), arguments.batch)
    return found.radius if found.answer == int(data.labels[index]) else -1.0


def _fill(files: Sequence[tuple[float, FlagsFile]], radius_of: Callable[[int], float]) -> None:
    """Certify the images that are not known at every radius, one by one."""
    known = np.logical_and.reduce([flags.is_known for _, flags in files])
    for index in tqdm(np.flatnonzero(~known).tolist(), desc="certify", unit="img", leave=False):
        started = time.perf_counter()
        found = radius_of(index)
        seconds = (time.perf_counter() - started) / len(files)
        for radius, flags in files:
            flags.write(slice(index, index + 1), np.array([found >= radius]), seconds)


def _check(arguments: Arguments) -> None:
    """Raises DataError for arguments out of range."""
    check_counts(arguments, "samples", "batch")
    if not arguments.sigma > 0:
        raise DataError(f"sigma is {arguments.sigma}; expected a deviation above 0 ([0, 1] pixels)")
    if not 0 < arguments.alpha < 1:
        raise DataError(f"alpha is {arguments.alpha}; expected a probability above 0 and below 1")
    if not arguments.radii or not all(radius >= 0 for radius in arguments.radii):
        raise DataError(f"radii are {arguments.radii}; expected one or more, each 0 or more ([0, 1] pixels)")
