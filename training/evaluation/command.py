"""The command python -m training.evaluation: accuracies of a checkpoint under named attacks."""

import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
import tyro
from tqdm import tqdm

from training.accuracy import correct_under
from training.checkpoint import CheckpointError, RunFolder, Weights
from training.data import load_images
from training.device import pick_device
from training.evaluation.protocol import EPSILON, AttackName, definition_of
from training.evaluation.results import Result, save_result, weights_sha256
from training.evaluation.statistics import wilson
from training.evaluation.suite import attack_named
from training.source import DataError


@dataclass(frozen=True)
class Arguments:
    """Measure the accuracy of a checkpoint on clean and on attacked images, in float32, with 95 % intervals."""

    checkpoint: tyro.conf.Positional[Path]
    """Run folder made by python -m training."""
    data: str | None = None
    """Hugging Face id or folder; by default the data it was trained on."""
    attacks: tuple[AttackName, ...] = ("fgsm", "pgd20", "cw")
    """Attacks to run, besides clean images."""
    queries: int = 1000
    """Of Square, per image."""
    split: str = "test"
    images: int | None = None
    """Use only so many images, spread evenly over the split."""
    epsilon: float = EPSILON
    """L-infinity bound, in [0, 1] pixels."""
    weights: Weights = "best"
    seed: int = 0
    """Of random starts and of Square's proposals."""


def main() -> None:
    arguments = tyro.cli(Arguments, prog="python -m training.evaluation")
    try:
        print(report(arguments))
    except (CheckpointError, DataError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped")


def report(arguments: Arguments) -> str:
    """Run the attacks and return the table, with everything needed to repeat it in its first lines.

    Each row is also kept in the run folder as soon as it is measured.
    """
    folder = RunFolder(arguments.checkpoint)
    config = folder.config()
    model = folder.load_model(arguments.weights)
    epsilon, seed = arguments.epsilon, arguments.seed
    if not 0 < epsilon <= 1:
        raise DataError(f"epsilon is {epsilon}; expected a bound above 0 and at most 1 ([0, 1] pixels)")
    data = load_images(arguments.data or config.data, arguments.split, config.image_shape)
    if data.classes != config.classes:
        raise DataError(
            f"the data has the {len(data.classes)} classes {', '.join(data.classes[:10])}; {arguments.checkpoint} was "
            f"trained on the {len(config.classes)} classes {', '.join(config.classes[:10])}"
        )
    if arguments.images is not None:
        if not 0 < arguments.images <= len(data):
            raise DataError(f"images is {arguments.images}; expected 1 to {len(data)}")
        data = data.spread(arguments.images)
    data_name = config.data_name if arguments.data in (None, config.data) else arguments.data
    device = pick_device()
    device.place_model(model)
    lines = [
        f"{arguments.checkpoint}: {config.model.name}{' with FSR' if config.model.fsr else ''}, "
        f"{arguments.weights} weights, recipe {config.recipe_name}",
        f"{data_name}, split {arguments.split}, n = {len(data)}, "
        f"L-infinity epsilon {epsilon * 255:g}/255, seed {seed}, float32",
        "",
        f"{'attack':<8}{'accuracy':>10}{'95 % interval':>20}   definition",
    ]
    clean = ("clean", None, "images as they are")
    attacks = [
        (
            name,
            attack_named(name, epsilon=epsilon, seed=seed, image_shape=data.shape, queries=arguments.queries),
            definition_of(name, arguments.queries),
        )
        for name in arguments.attacks
    ]
    data_digest, weights_digest = data.sha256, weights_sha256(folder.path, arguments.weights)
    for name, attack, definition in [clean, *attacks]:
        started = time.perf_counter()
        with tqdm(total=len(data), desc=name, unit="img", leave=False) as bar:
            correct = correct_under(attack, model, data, device, progress=bar.update)
        interval = wilson(int(correct.sum()), len(data))
        save_result(
            folder.path,
            Result(
                weights=arguments.weights,
                weights_sha256=weights_digest,
                attack=name,
                definition=definition,
                epsilon=epsilon if attack else 0.0,
                **interval._asdict(),
                n=len(data),
                data=f"{data_name}, split {arguments.split}",
                data_sha256=data_digest,
                seed=seed,
                runtime=f"torch {torch.__version__}",
                precision="fp32",
                seconds=round(time.perf_counter() - started, 1),
                measured=date.today().isoformat(),
            ),
        )
        lines.append(f"{name:<8}{interval.accuracy:>10.2%}{interval.low:>11.2%} - {interval.high:.2%}   {definition}")
    return "\n".join(lines)
