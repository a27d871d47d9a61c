"""The command python -m training: data and progress bar around `train`."""

import shlex
import sys
from contextlib import nullcontext
from pathlib import Path

from training.arguments import PROGRAM, ArgumentError, Arguments, parse
from training.batches import Data
from training.checkpoint import CheckpointError, ModelConfig, RunConfig, RunFolder
from training.curves import plot_history
from training.data import ImageData, held_out_count, hold_out, load_extra, load_images
from training.device import pick_device
from training.processes import ALONE, Processes, joined
from training.progress import progress_bar, tensorboard
from training.source import DataError
from training.train import train
from training.validation import TrainingStoppedError


def main() -> None:
    try:
        arguments = parse()
        try:
            with joined() as processes:
                reached = run(arguments, processes)
        except KeyboardInterrupt:
            sys.exit(f"\nstopped; {_way_on(arguments)}")
        if processes.is_first:
            print(reached)
    except (ArgumentError, CheckpointError, DataError, TrainingStoppedError, OSError) as error:
        sys.exit(f"error: {error}")


def _way_on(arguments: Arguments) -> str:
    """How to go on after an interruption: by the same command and --resume."""
    if not RunFolder(arguments.out).has_begun:
        return "nothing was written"
    given = sys.argv[1:] if arguments.resume else [*sys.argv[1:], "--resume"]
    return f"go on with: {shlex.join([*PROGRAM.split(), *given])}"


def run(arguments: Arguments, processes: Processes = ALONE) -> str:
    """Run or go on, showing a progress bar; returns what was reached in one line."""
    folder = RunFolder(arguments.out)
    if processes.is_first and not arguments.resume:
        folder.check_is_new()
    config, data = _prepared(arguments, folder)
    recipe = config.recipe
    if recipe.batch_size % processes.count:
        raise ArgumentError(
            f"batch_size is {recipe.batch_size}; expected a multiple of the {processes.count} processes"
        )
    device = pick_device(arguments.deterministic)
    with folder.claimed() if processes.is_first else nullcontext():
        if processes.is_first and not arguments.resume:
            folder.create(config)
        processes.wait()
        total = recipe.epochs * (len(data.training) // recipe.batch_size) * recipe.batch_size
        done = total * len(folder.history()) // recipe.epochs
        try:
            with (
                progress_bar(recipe, total, done, is_shown=processes.is_first) as progress,
                tensorboard(arguments.out if arguments.tensorboard and processes.is_first else None) as record,
            ):
                train(
                    config,
                    folder,
                    data,
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
    n = min(recipe.validation_images, len(data.validation))
    return f"{arguments.out}: clean {clean:.1%}, PGD-10 {attacked:.1%} on {n} held-out images after the last epoch"


def _prepared(arguments: Arguments, folder: RunFolder) -> tuple[RunConfig, Data]:
    """The run's config, of old with --resume, and its data, checked against each other; nothing is written."""
    earlier = folder.config() if arguments.resume else None
    if earlier is None:
        _model(arguments, num_classes=2)  # reading the data can take minutes
        if arguments.start is not None:
            RunFolder(arguments.start).load_model("best")
    of = earlier or arguments
    images = load_images(arguments.data, "train", of.image_shape, of.jpeg_scale)
    source = arguments.extra or (earlier.extra if earlier else None)
    extra = None if source is None else load_extra(source, images, of.jpeg_scale)
    config = earlier or _config(arguments, images, extra)
    recipe = config.recipe
    if arguments.resume:
        config.check_data(images, extra)
    training, validation = hold_out(images, recipe.held_out, config.seed)
    if len(training) < recipe.batch_size:
        raise DataError(
            f"{len(training)} images are left to train on and {len(validation)} held out; expected at least one batch "
            f"of {recipe.batch_size}. Lower --batch-size or --held-out"
        )
    return config, Data(training, validation, extra)


def _model(arguments: Arguments, num_classes: int) -> ModelConfig:
    """Raises ArgumentError for a network that cannot be built."""
    model = ModelConfig(**vars(arguments.architecture), num_classes=num_classes)
    try:
        model.build()
    except ValueError as error:
        raise ArgumentError(str(error)) from error
    return model


def _config(arguments: Arguments, images: ImageData, extra: ImageData | None) -> RunConfig:
    model = _model(arguments, len(images.classes))
    recipe = arguments.recipe
    try:
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
            jpeg_scale=arguments.jpeg_scale,
        )
    except ValueError as error:
        raise ArgumentError(str(error)) from error
    if (recipe.extra_fraction > 0) != (extra is not None):
        raise ArgumentError(
            f"extra is {arguments.extra} and extra_fraction {recipe.extra_fraction}; expected both or neither"
        )
    if arguments.start is not None:
        _check_start(RunFolder(arguments.start).config(), config, images)
    return config


def _check_start(started: RunConfig, config: RunConfig, images: ImageData) -> None:
    """Raises ArgumentError for another network, or one that has been trained on what is now held out."""
    if started.model.spelt_out != config.model.spelt_out:
        raise ArgumentError(f"--start {config.start} holds {started.model}; expected the same network, {config.model}")
    if started.data_sha256 != config.data_sha256:
        return
    theirs, ours = ((of.seed, held_out_count(images, of.recipe.held_out)) for of in (started, config))
    if theirs != ours:
        raise ArgumentError(
            f"--seed is {ours[0]} and {ours[1]} images are held out, but --start {config.start} held out {theirs[1]} "
            f"with seed {theirs[0]}, and was trained on others; expected --seed {theirs[0]} --held-out {theirs[1]}"
        )
