"""The command python -m training.evaluation obfuscation: is this robustness, or does the network hide from attacks?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

import torch
import tyro

from training.accuracy import BATCH, frozen
from training.attacks import cross_entropy
from training.checkpoint import CheckpointError, RunFolder, Weights
from training.data import ImageData, to_floats
from training.device import pick_device
from training.evaluation.bounds import outcome
from training.evaluation.command_line import tell
from training.evaluation.compare import ComparisonError, compare, titles
from training.evaluation.deployed import checked, deployed, through_uploads
from training.evaluation.flags import Booleans
from training.evaluation.inspection import check_epsilon, open_data, spread
from training.evaluation.mask_statistics import SATURATED_SCORE, mask_statistics
from training.evaluation.missing import Subject
from training.evaluation.obfuscation import RULES, Verdict, judged
from training.evaluation.origin import check_is_of
from training.evaluation.protocol import EPSILON, is_bounded_by
from training.evaluation.results import Result, load_flags, load_results, weights_sha256
from training.evaluation.runs import load_run
from training.evaluation.statistics import wilson
from training.evaluation.suite import ADAPTIVE, PROBED, is_possible
from training.models import FSRNet
from training.models.separated import recorded
from training.source import DataError

ELSEWHERE = {
    "10": ("evaluation refuses a network in train mode", "a test: make test"),
    "13": ("the Ensemble is a worst case per image, not the worst mean", "a test: make test"),
    "15": ("our attacks break networks that only look robust", "a test: make test-slow"),
}


FEW_ZEROS = 0.01
"""Share of images whose gradient may be zero."""


@dataclass(frozen=True)
class Arguments:
    """Judge what python -m training.evaluation has measured of a run by the tests that reveal obfuscated gradients.

    Says pass or fail where the 95 % interval lies on one side of the bound, too few images where it holds it, a figure,
    or not run and what is missing. Measures by itself only shares of zero gradients and of saturated masks.
    """

    checkpoint: tyro.conf.Positional[Path]
    """Run folder made by python -m training."""
    twin: Path | None = None
    """Run of the same recipe and seed without FSR, measured on the same images."""
    version: Path | None = None
    """Model version exported from the run and measured by python -m export.verify and python -m export.uploads."""
    data: str | None = None
    """For zero gradients: Hugging Face id or folder; by default the data it was trained on."""
    images: int = 500
    """For zero gradients: test images, spread evenly; fewer than 381 cannot show that less than 1 % have one."""
    epsilon: float = EPSILON
    """Whose figures are judged, in [0, 1] pixels."""
    weights: Weights = "best"


def main(args: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(Arguments, prog="python -m training.evaluation obfuscation", args=args)
    tell(lambda: report(arguments), CheckpointError, ComparisonError, DataError)


def report(arguments: Arguments) -> Iterator[str]:
    """Lines of Markdown: a table of verdicts in the order of the tests' numbers."""
    check_epsilon(arguments.epsilon)
    folder = RunFolder(arguments.checkpoint)
    config, model = folder.config(), folder.load_model(arguments.weights)
    if arguments.version is not None:
        check_is_of(arguments.version, arguments.checkpoint, arguments.weights)
    data, _ = open_data(arguments.checkpoint, config, arguments.data, "test")
    data = spread(data, arguments.images, "images")
    digest = weights_sha256(arguments.checkpoint, arguments.weights)
    results = [
        result
        for result in load_results(arguments.checkpoint)
        if result.weights_sha256 == digest and result.answered_by == "network"
    ]
    model_config = config.model
    impossible = [name for name in ADAPTIVE if not is_possible(name, model_config)]
    rival = model_config.rival if model_config.rival in PROBED else None
    subject = Subject(arguments.epsilon, arguments.weights, config.data_name, impossible, rival)

    def flags(result: Result) -> Booleans | None:
        is_kept = (arguments.checkpoint / result.flags_path).exists()
        return load_flags(arguments.checkpoint, result) if is_kept else None

    verdicts = [judged(rule, results, subject, flags) for rule in RULES]
    verdicts += [zero_gradients(model, data), *beside_twin(arguments)]
    verdicts += [deployed(arguments.version), through_uploads(arguments.version, arguments.epsilon)]
    verdicts.append(checked(arguments.version, arguments.epsilon))
    verdicts += [Verdict(number, test, "not run", why) for number, (test, why) in ELSEWHERE.items()]
    yield f"{arguments.checkpoint}, {arguments.weights} weights, L-infinity epsilon {arguments.epsilon * 255:g}/255"
    yield ""
    yield "| | test | verdict | found |"
    yield "|---:|---|---|---|"
    for verdict in sorted(verdicts, key=lambda verdict: int(verdict.number)):
        yield f"| {verdict.number} | {verdict.test} | {verdict.status} | {verdict.found} |"


def zero_gradients(model: FSRNet, data: ImageData) -> Verdict:
    """Test 9: the share of images whose input gradient is zero everywhere, and of mask scores beyond +-1."""
    device = pick_device()
    device.place_model(model)
    zeros, masks = 0, []
    with frozen(model):
        for pixels, labels in zip(data.pixels.split(BATCH), data.labels.split(BATCH), strict=True):
            images = device.place_images(to_floats(pixels), model).requires_grad_()
            with recorded(model) as passes:
                loss = cross_entropy(model(images), labels.to(device.torch_device)).sum()
            (gradient,) = torch.autograd.grad(loss, images)
            zeros += int((gradient == 0).flatten(1).all(dim=1).sum())
            masks += [mask_statistics(last) for last in passes[-1:]]
    saturated = reduce(add, masks).saturated_share if masks else None
    of_mask = "" if saturated is None else f", {saturated:.1%} of mask scores beyond +-{SATURATED_SCORE:g}"
    share = wilson(zeros, len(data))
    found = f"{share.accuracy:.1%} ({share.low:.1%} - {share.high:.1%}) of images{of_mask}; n = {len(data):,}"
    return Verdict("9", "at most 1 % of images have a gradient of zero", outcome(share, FEW_ZEROS), found)


def beside_twin(arguments: Arguments) -> Iterator[Verdict]:
    """Test 14: McNemar's test against the run without FSR, attack by attack."""
    test = "with FSR against its twin without, on the same images"
    if arguments.twin is None:
        yield Verdict("14", test, "not run", "--twin names the run without FSR")
        return
    try:
        of_both = compare(load_run(arguments.twin), load_run(arguments.checkpoint), load_flags)
    except (ComparisonError, DataError) as error:
        yield Verdict("14", test, "not run", str(error))
        return
    compared = [
        one
        for one in of_both
        if one.first.weights == arguments.weights
        and one.first.is_on_test_images
        and is_bounded_by(arguments.epsilon, one.first.epsilon)
    ]
    names = titles(compared)
    for one in compared:
        gain = 100 * (one.second.accuracy - one.first.accuracy)
        found = f"{names[one.subject]}: {gain:+.2f} points, McNemar p {one.test.p:.2g}"
        yield Verdict("14", test, "figure", f"{found}; n = {one.first.n:,}, {one.first.data}")
    if not compared:
        why = (
            f"nothing was measured of both on test images with {arguments.weights} weights at epsilon "
            f"{arguments.epsilon:.6g}"
        )
        yield Verdict("14", test, "not run", why)
