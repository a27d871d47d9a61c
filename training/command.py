"""The command python -m training: arguments, data and progress bar around `train`."""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from torch import Tensor
from tqdm import tqdm

from training.checkpoint import CheckpointError, ModelConfig, RunConfig, RunFolder
from training.curves import plot_history
from training.data import ImageData, hold_out, load_images
from training.device import pick_device
from training.recipes import RECIPES, RecipeName
from training.source import DataError
from training.train import TrainingStoppedError, train


class ArgumentError(ValueError):
    """An argument makes no sense."""


@dataclass(frozen=True)
class Arguments:
    """Train a network adversarially. Leaves config.json, best and last weights, history.jsonl and curves.png."""

    data: str
    """Hugging Face id, or a folder of parquet files or of one image folder per class."""
    out: Path
    """Run folder to make, or with --resume to go on with."""
    recipe: RecipeName = "fast"
    """fast: single-step training for machines without a GPU. paper: section 4.1 of the paper, PGD-10."""
    model: str = "resnet18"
    """resnet18, vgg16 or wide_resnet34_10."""
    width: int | None = None
    """Channels of the first stage; the paper's by default."""
    fsr: bool = True
    """Insert the FSR module where the paper has it."""
    tau: float = 0.1
    """Temperature of the Gumbel softmax (Eq. 2)."""
    start: Path | None = None
    """Run folder whose best weights to start from, of the same network; by default random ones."""
    epochs: int | None = None
    """Another number of epochs than the recipe's; its phases keep their shares."""
    natural_share: float | None = None
    """Another share of epochs on clean images, at the start, than the recipe's."""
    small_share: float | None = None
    """Another share of epochs on smaller images, at the start, than the recipe's."""
    learning_rate: float | None = None
    """Another (peak) learning rate than the recipe's."""
    epsilon: float | None = None
    """Another L-infinity bound than the recipe's 8/255, in [0, 1] pixels."""
    held_out: int | None = None
    """Another number of images held out for validation than the recipe's 2500."""
    data_name: str | None = None
    """What the data is called in reports; the last part of --data by default."""
    seed: int = 0
    resume: bool = False
    """Go on with the run in --out, at most one epoch back; its own settings hold."""


RECIPE_ARGUMENTS = ("epochs", "natural_share", "small_share", "learning_rate", "epsilon", "held_out")


def main() -> None:
    arguments = tyro.cli(Arguments, prog="python -m training")
    try:
        print(run(arguments))
    except (ArgumentError, CheckpointError, DataError, TrainingStoppedError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"\nstopped; go on with: python -m training --data {arguments.data} --out {arguments.out} --resume")


def run(arguments: Arguments) -> str:
    """Run or go on, showing a progress bar; returns what was reached in one line."""
    folder = RunFolder(arguments.out)
    images = load_images(arguments.data, "train")
    if arguments.resume:
        config = folder.config()
        config.check_data(images)
    else:
        config = _config(arguments, images)
    data, validation = hold_out(images, config.recipe.held_out, config.seed)
    batch = config.recipe.batch_size
    if len(data) < batch:
        raise DataError(f"{len(data)} images are left to train on; expected at least one batch of {batch}")
    if not arguments.resume:
        folder.create(config)
    total = config.recipe.epochs * (len(data) // batch) * batch
    done = total * len(folder.history()) // config.recipe.epochs
    with tqdm(total=total, initial=done, unit="img", smoothing=0.02) as bar:

        def progress(epoch: int, images: int, means: Tensor) -> None:
            if bar.update(images):  # only when the bar is due, so that a GPU is seldom waited for
                loss, classification, separation, recalibration, accuracy = means.tolist()
                bar.set_description(f"epoch {epoch}/{config.recipe.epochs}", refresh=False)
                bar.set_postfix_str(
                    f"loss {loss:.2f} (class {classification:.2f} sep {separation:.2f} rec {recalibration:.2f}) "
                    f"accuracy {accuracy:.1%}",
                    refresh=False,
                )

        try:
            train(config, folder, data, validation, pick_device(), progress=progress)
        finally:
            if history := folder.history():
                plot_history(history, arguments.out / "curves.png")
    final = folder.history()[-1]
    clean, attacked = final["validation_clean_accuracy"], final["validation_pgd10_accuracy"]
    n = min(config.recipe.validation_images, len(validation))
    return f"{arguments.out}: clean {clean:.1%}, PGD-10 {attacked:.1%} on {n} held-out images after the last epoch"


def _config(arguments: Arguments, images: ImageData) -> RunConfig:
    chosen = {name: getattr(arguments, name) for name in RECIPE_ARGUMENTS}
    model = ModelConfig(arguments.model, len(images.classes), arguments.fsr, arguments.width, arguments.tau)
    try:
        model.build()  # refuse bad values before anything is written
        recipe = dataclasses.replace(
            RECIPES[arguments.recipe], **{name: value for name, value in chosen.items() if value is not None}
        )
    except ValueError as error:
        raise ArgumentError(str(error)) from error
    if arguments.start is not None:
        started = RunFolder(arguments.start).config().model
        if started != model:
            raise ArgumentError(f"--start {arguments.start} holds {started}; expected the same network, {model}")
    return RunConfig(
        model=model,
        recipe_name=arguments.recipe,
        recipe=recipe,
        start=None if arguments.start is None else str(arguments.start),
        data=arguments.data,
        data_name=arguments.data_name or Path(arguments.data).name,
        data_sha256=images.sha256,
        classes=images.classes,
        image_shape=images.shape,
        seed=arguments.seed,
    )
