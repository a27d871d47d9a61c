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
from training.data import DataError, hold_out, load_images
from training.device import pick_device
from training.recipes import RECIPES, RecipeName
from training.train import CatastrophicOverfittingError, train


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
    epochs: int | None = None
    """Another number of epochs than the recipe's."""
    epsilon: float | None = None
    """Another L-infinity bound than the recipe's 8/255, in [0, 1] pixels."""
    held_out: int | None = None
    """Another number of images held out for validation than the recipe's 2500."""
    data_name: str | None = None
    """What the data is called in reports; the last part of --data by default."""
    seed: int = 0
    resume: bool = False
    """Go on with the run in --out, at most one epoch back; its own settings hold."""


def main() -> None:
    arguments = tyro.cli(Arguments, prog="python -m training")
    try:
        run(arguments)
    except (CheckpointError, CatastrophicOverfittingError, DataError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"\nstopped; go on with: python -m training --data {arguments.data} --out {arguments.out} --resume")


def run(arguments: Arguments) -> None:
    folder = RunFolder(arguments.out)
    images = load_images(arguments.data, "train")
    config = folder.config() if arguments.resume else _config(arguments, images.classes, images.shape)
    data, validation = hold_out(images, config.recipe.held_out, config.seed)
    if len(data) < config.recipe.batch_size:
        raise DataError(
            f"{len(data)} images are left to train on; expected at least one batch of {config.recipe.batch_size}"
        )
    if not arguments.resume:
        folder.create(config)
    done = len(folder.history())
    per_epoch = len(data) // config.recipe.batch_size * config.recipe.batch_size
    with tqdm(total=config.recipe.epochs * per_epoch, initial=done * per_epoch, unit="img", smoothing=0.02) as bar:

        def progress(epoch: int, images: int, means: Tensor) -> None:
            if bar.update(images):  # only when the bar is due, so that a GPU is seldom waited for
                loss, classification, separation, recalibration, accuracy = means.tolist()
                bar.set_description(f"epoch {epoch}/{config.recipe.epochs}", refresh=False)
                bar.set_postfix_str(
                    f"loss {loss:.2f} (class {classification:.2f} sep {separation:.2f} rec {recalibration:.2f}) "
                    f"accuracy {accuracy:.1%}",
                    refresh=False,
                )

        train(config, folder, data, validation, pick_device(), progress=progress)
    plot_history(folder.history(), arguments.out / "curves.png")
    final = folder.history()[-1]
    print(
        f"{arguments.out}: clean {final['validation_clean_accuracy']:.1%}, PGD-10 "
        f"{final['validation_pgd10_accuracy']:.1%} on {config.recipe.validation_images} held-out images (last epoch)"
    )


def _config(arguments: Arguments, classes: tuple[str, ...], image_shape: tuple[int, int]) -> RunConfig:
    chosen = {name: getattr(arguments, name) for name in ("epochs", "epsilon", "held_out")}
    recipe = dataclasses.replace(
        RECIPES[arguments.recipe], **{name: value for name, value in chosen.items() if value is not None}
    )
    model = ModelConfig(arguments.model, len(classes), arguments.fsr, arguments.width, arguments.tau)
    model.build()  # refuse bad values before anything is written
    return RunConfig(
        model=model,
        recipe_name=arguments.recipe,
        recipe=recipe,
        data=arguments.data,
        data_name=arguments.data_name or Path(arguments.data).name,
        classes=classes,
        image_shape=image_shape,
        seed=arguments.seed,
    )
