"""The command python -m training.evaluation features: what FSR's features and masks hold, clean and attacked."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import tyro
from tqdm import tqdm

from training.accuracy import BATCH
from training.checkpoint import CheckpointError
from training.device import pick_device
from training.evaluation.arguments import RunArguments
from training.evaluation.command_line import tell
from training.evaluation.features_figure import draw_features
from training.evaluation.features_report import markdown, write_numbers
from training.evaluation.inspection import Threat, check_epsilon, check_is_new, open_data, open_run, spread
from training.evaluation.neighbour_accuracies import KS, neighbour_accuracies
from training.evaluation.pooled import look_inside
from training.evaluation.protocol import EPSILON
from training.evaluation.statistics import wilson
from training.evaluation.suite import CheckpointAttack
from training.source import DataError

PROGRAM = "python -m training.evaluation features"


@dataclass(frozen=True, kw_only=True)
class Arguments(RunArguments):
    """Weighted k-NN accuracies of FSR's features and statistics of its mask, on clean and on attacked images.

    Writes features.md, features.png, neighbours.csv, mask_histogram.csv and mask_channels.csv.
    """

    out: Path
    """Folder to make."""
    training_images: int | None = None
    """Neighbours come from only so many training images; by default from all."""
    attack: CheckpointAttack = "pgd20"
    epsilon: float = EPSILON
    """L-infinity bound, in [0, 1] pixels."""


def main(args: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(Arguments, prog=PROGRAM, args=args)
    tell(lambda: [report(arguments)], CheckpointError, DataError)


def report(arguments: Arguments) -> str:
    """Measure, write the files and return the report's text."""
    check_is_new(arguments.out)
    check_epsilon(arguments.epsilon)
    run = open_run(arguments.checkpoint, arguments.weights)
    threat = Threat(arguments.attack, arguments.epsilon, arguments.seed)
    threat.check_against(run)
    if arguments.split == "train":
        raise DataError("split is 'train', whose images are the neighbours; expected another, such as test")
    tests, tests_name = arguments.open_images(run.config)
    training, training_name = open_data(run.path, run.config, arguments.data, "train")
    training = spread(training, arguments.training_images, "training_images", least=max(KS))
    arguments.out.mkdir(parents=True, exist_ok=True)
    device = pick_device()
    device.place_model(run.model)
    with tqdm(total=len(training) + 2 * len(tests), unit="img", leave=False) as bar:
        bar.set_description("training images")
        neighbours = look_inside(run.model, training, device, progress=bar.update)
        seen = {}
        for images, attack in (("clean", None), ("attacked", threat.build(tests.shape))):
            bar.set_description(f"{images} images")
            seen[images] = look_inside(run.model, tests, device, attack, progress=bar.update)
    with tqdm(total=sum(len(part.pooled) for part in seen.values()), desc="k-NN", unit="feature", leave=False) as bar:
        rows = neighbour_accuracies(
            seen, tests.labels, neighbours, training.labels, len(training.classes), progress=bar.update
        )
    own = {name: wilson(int((part.answers == tests.labels).sum()), len(tests)) for name, part in seen.items()}
    masks = {name: part.mask for name, part in seen.items()}
    attacked = threat.describe(len(training.classes), BATCH)
    given = [
        run.description,
        f"{tests_name}, n = {len(tests)} (SHA-256 {tests.sha256[:12]}); neighbours: {training_name}, "
        f"n = {len(training)} (SHA-256 {training.sha256[:12]})",
        f"attack: {attacked}",
        f"measured {date.today().isoformat()}; intervals of 95 % (Wilson); features averaged over places",
    ]
    text = markdown(given, own, rows, masks)
    caption = f"{run.description}. {tests_name}, n = {len(tests)}, {len(training)} neighbours. {attacked}."
    draw_features(rows, masks, caption).savefig(arguments.out / "features.png", dpi=150)
    write_numbers(arguments.out, rows, masks)
    (arguments.out / "features.md").write_text(text)
    return text
