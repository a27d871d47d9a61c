"""The command python -m training.evaluation: accuracies of a checkpoint under named attacks."""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from tqdm import tqdm

from training.accuracy import correct_under
from training.checkpoint import CheckpointError, RunFolder, Weights
from training.data import DataError, load_images
from training.device import pick_device
from training.evaluation.statistics import wilson
from training.evaluation.suite import AttackName, attack_named


@dataclass(frozen=True)
class Arguments:
    """Measure the accuracy of a checkpoint on clean and on attacked images, in float32, with 95 % intervals."""

    checkpoint: tyro.conf.Positional[Path]
    """Run folder made by python -m training."""
    data: str | None = None
    """Hugging Face id or folder; by default the data it was trained on."""
    attacks: tuple[AttackName, ...] = ("fgsm", "pgd20", "cw")
    """Attacks to run, besides clean images."""
    split: str = "test"
    images: int | None = None
    """Use only so many images, spread evenly over the split."""
    epsilon: float = 8 / 255
    """L-infinity bound, in [0, 1] pixels."""
    weights: Weights = "best"
    seed: int = 0
    """Of the random starts."""


def main() -> None:
    arguments = tyro.cli(Arguments, prog="python -m training.evaluation")
    try:
        print(report(arguments))
    except (CheckpointError, DataError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped")


def report(arguments: Arguments) -> str:
    """Run the attacks and return the table, with everything needed to repeat it in its first lines."""
    folder = RunFolder(arguments.checkpoint)
    config = folder.config()
    model = folder.load_model(arguments.weights)
    if not 0 < arguments.epsilon <= 1:
        raise DataError(f"epsilon is {arguments.epsilon}; expected a bound above 0 and at most 1 ([0, 1] pixels)")
    data = load_images(arguments.data or config.data, arguments.split)
    if data.classes != config.classes:
        raise DataError(
            f"the data has the {len(data.classes)} classes {', '.join(data.classes[:10])}; {arguments.checkpoint} was "
            f"trained on the {len(config.classes)} classes {', '.join(config.classes[:10])}"
        )
    if data.shape != config.image_shape:
        raise DataError(f"the images are {data.shape}; {arguments.checkpoint} was trained on {config.image_shape}")
    if arguments.images is not None:
        if not 0 < arguments.images <= len(data):
            raise DataError(f"images is {arguments.images}; expected 1 to {len(data)}")
        data = data.spread(arguments.images)
    device = pick_device()
    device.place_model(model)
    lines = [
        f"{arguments.checkpoint}: {config.model.name}{' with FSR' if config.model.fsr else ''}, "
        f"{arguments.weights} weights, recipe {config.recipe_name}",
        f"{arguments.data or config.data_name}, split {arguments.split}, n = {len(data)}, "
        f"L-infinity epsilon {arguments.epsilon * 255:g}/255, seed {arguments.seed}, float32",
        "",
        f"{'attack':<8}{'accuracy':>10}{'95 % interval':>20}   definition",
    ]
    attacks = [(name, *attack_named(name, arguments.epsilon)) for name in arguments.attacks]
    for name, attack, definition in [("clean", None, "images as they are"), *attacks]:
        torch.manual_seed(arguments.seed)  # for each, so that a row does not depend on the rows above it
        with tqdm(total=len(data), desc=name, unit="img", leave=False) as bar:
            correct = correct_under(attack, model, data, device, progress=bar.update)
        accuracy, low, high = wilson(int(correct.sum()), len(data))
        lines.append(f"{name:<8}{accuracy:>10.2%}{low:>11.2%} - {high:.2%}   {definition}")
    return "\n".join(lines)
