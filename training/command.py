"""The command python -m training: data and progress bar around `train`."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from training.arguments import Arguments, parse
from training.batches import Data
from training.checkpoint import CheckpointError, ModelConfig, RunConfig, RunFolder
from training.curves import plot_history
from training.data import ImageData, hold_out, load_extra, load_images
from training.device import pick_device
from training.environment import environment
from training.processes import ALONE, Processes, joined
from training.recipes import ACTIVATION_OF_RECIPE, Recipe
from training.source import DataError
from training.train import Progress, train
from training.validation import TrainingStoppedError


class ArgumentError(ValueError):
    """An argument makes no sense."""


def main() -> None:
    arguments = parse()
    try:
        with joined() as processes:
            reached = run(arguments, processes)
        if processes.is_first:
            print(reached)
    except (ArgumentError, CheckpointError, DataError, TrainingStoppedError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"\nstopped; go on with: python -m training --data {arguments.data} --out {arguments.out} --resume")


def run(arguments: Arguments, processes: Processes = ALONE) -> str:
    """Run or go on, showing a progress bar; returns what was reached in one line."""
    folder = RunFolder(arguments.out)
    earlier = folder.config() if arguments.resume else None
    images = load_images(arguments.data, "train", earlier.image_shape if earlier else arguments.image_shape)
    source = arguments.extra or (earlier.extra if earlier else None)
    extra = None if source is None else load_extra(source, images)
    config = earlier or _config(arguments, images, extra)
    recipe = config.recipe
    if arguments.resume:
        config.check_data(images, extra)
    training, validation = hold_out(images, recipe.held_out, config.seed)
    if len(training) < recipe.batch_size:
        raise DataError(
            f"{len(training)} images are left to train on; expected at least one batch of {recipe.batch_size}"
        )
    if recipe.batch_size % processes.count:
        raise ArgumentError(
            f"batch_size is {recipe.batch_size}; expected a multiple of the {processes.count} processes"
        )
    device = pick_device(arguments.deterministic)
    if processes.is_first:
        if not arguments.resume:
            folder.create(config)
        folder.save_environment(environment(device, processes))
    processes.wait()
    total = recipe.epochs * (len(training) // recipe.batch_size) * recipe.batch_size
    done = total * len(folder.history()) // recipe.epochs
    try:
        with (
            _progress_bar(recipe, total, done, is_shown=processes.is_first) as progress,
            _tensorboard(arguments.out if arguments.tensorboard and processes.is_first else None) as record,
        ):
            train(
                config,
                folder,
                Data(training, validation, extra),
                device,
                processes,
                compiled=arguments.compile,
                progress=progress,
                record=record,
            )
    finally:
        if processes.is_first and (history := folder.history()):
            plot_history(history, arguments.out / "curves.png")
    final = folder.history()[-1]
    clean, attacked = final["validation_clean_accuracy"], final["validation_pgd10_accuracy"]
    n = min(recipe.validation_images, len(validation))
    return f"{arguments.out}: clean {clean:.1%}, PGD-10 {attacked:.1%} on {n} held-out images after the last epoch"


@contextmanager
def _progress_bar(recipe: Recipe, total: int, done: int, is_shown: bool) -> Iterator[Progress]:
    with tqdm(total=total, initial=done, unit="img", smoothing=0.02, disable=not is_shown) as bar:

        def progress(epoch: int, images: int, means: Mapping[str, Tensor]) -> None:
            if bar.update(images):  # only when the bar is due, so that a GPU is seldom waited for
                shown = [f"{name.removesuffix('_loss')} {float(means[name]):.2f}" for name in means if "loss" in name]
                bar.set_description(f"epoch {epoch}/{recipe.epochs}", refresh=False)
                bar.set_postfix_str(f"{' '.join(shown)} accuracy {float(means['train_accuracy']):.1%}", refresh=False)

        yield progress


@contextmanager
def _tensorboard(folder: Path | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Takes lines of the history and writes them for TensorBoard below `folder`; None writes nothing."""
    if folder is None:
        yield lambda line: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as missing:
        raise ArgumentError(
            "--tensorboard needs tensorboard; install it with: pip install 'fsr-serve[tensorboard]'"
        ) from missing

    with SummaryWriter(folder / "tensorboard") as writer:

        def record(line: Mapping[str, Any]) -> None:
            for name, value in line.items():
                if name != "epoch":
                    writer.add_scalar(name, value, line["epoch"])

        yield record


def _config(arguments: Arguments, images: ImageData, extra: ImageData | None) -> RunConfig:
    model = ModelConfig(
        name=arguments.model,
        num_classes=len(images.classes),
        fsr=arguments.fsr,
        width=arguments.width,
        tau=arguments.tau,
        after=arguments.after,
        mask=arguments.mask,
        recalibration=arguments.recalibration,
        rival=arguments.rival,
        activation=arguments.activation or ACTIVATION_OF_RECIPE[arguments.recipe_name],
    )
    recipe = arguments.recipe
    try:
        model.build()  # refuse bad values before anything is written
        config = RunConfig(
            model=model,
            recipe_name=arguments.recipe_name,
            recipe=recipe,
            start=None if arguments.start is None else str(arguments.start),
            data=arguments.data,
            data_name=arguments.data_name or Path(arguments.data).name,
            data_sha256=images.sha256,
            classes=images.classes,
            image_shape=images.shape,
            seed=arguments.seed,
            extra=arguments.extra,
            extra_sha256=None if extra is None else extra.sha256,
        )
    except ValueError as error:
        raise ArgumentError(str(error)) from error
    if (recipe.extra_fraction > 0) != (extra is not None):
        raise ArgumentError(
            f"extra is {arguments.extra} and extra_fraction {recipe.extra_fraction}; expected both or neither"
        )
    if arguments.start is not None:
        started = RunFolder(arguments.start).config().model
        if started != model:
            raise ArgumentError(f"--start {arguments.start} holds {started}; expected the same network, {model}")
    return config
