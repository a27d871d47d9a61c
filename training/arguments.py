"""The arguments of python -m training: those of a run, and every choice of its recipe."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import tyro

from training.checkpoint import Architecture, RunConfig, RunFolder
from training.data_sets import DATA_SETS
from training.decoding import JpegScale
from training.recipes import ACTIVATION_OF_RECIPE, RECIPES, Recipe, RecipeName

PROGRAM = "python -m training"
MOST_SEED = 2**64 - 1
"""That torch takes."""
OF_NO_CONSEQUENCE = {"data", "out", "extra", "resume", "compile", "deterministic", "tensorboard"}
"""Arguments with which a run may go on otherwise than it was begun; data is known by its content."""


class ArgumentError(ValueError):
    """An argument makes no sense; the message names its value, the rule and the fix."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train a network adversarially. Leaves config.json, best and last weights, history.jsonl and curves.png."""

    data: str
    """cifar10, cifar100, svhn, tiny-imagenet, another Hugging Face id, or a folder of parquet files or of one image
    folder per class."""
    out: Path
    """Run folder to make, or with --resume to go on with."""
    recipe_name: Annotated[RecipeName, tyro.conf.arg(name="recipe")] = "fast"
    """fast: single-step training for machines without a GPU. paper: section 4.1 of the paper, PGD-10. strong: the paper
    with what has helped since. `--recipe paper --help` shows what paper makes of the options below."""
    image_shape: tuple[int, int] | None = None
    """Height and width to make of every image; needed where they differ in size."""
    jpeg_scale: JpegScale = "full"
    """How large JPEGs are decoded, here, in evaluation and by the server. reduced: at 1/2, 1/4 or 1/8, still twice what
    the network takes; several times faster for photographs, with slightly other pixels."""
    extra: str | None = None
    """More images, usually generated, for --extra-fraction of each batch: an .npz of arrays image and label, or as
    --data."""
    architecture: tyro.conf.OmitArgPrefixes[Architecture] = field(default_factory=Architecture)
    start: Path | None = None
    """Run folder whose best weights to start from, of the same network; by default random ones."""
    data_name: str | None = None
    """What the data is called in reports; the last part of --data by default."""
    seed: int = 0
    resume: bool = False
    """Go on with the run in --out, at most one epoch back, as it was begun; options that say otherwise are refused."""
    compile: bool = False
    """Compile the attack, most of the work, with torch.compile."""
    deterministic: bool = False
    """Use deterministic algorithms only: the same losses on every run with this seed on this machine."""
    tensorboard: bool = False
    """Write the history for TensorBoard too, into the run folder."""
    recipe: tyro.conf.OmitArgPrefixes[Recipe] = RECIPES["fast"]

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MOST_SEED:
            raise ValueError(f"seed is {self.seed}; expected 0 or more and at most {MOST_SEED}")


@dataclass(frozen=True)
class Preset:
    """What decides the values that a recipe's options have unless they are given."""

    recipe: RecipeName = "fast"
    data: str = ""
    out: Path | None = None
    resume: bool = False

    def arguments(self) -> Arguments:
        """Those of the run that is gone on with, or of a new one: the recipe, adapted to a data set known by name."""
        if self.resume and self.out is not None:
            return _as_begun(RunFolder(self.out).config())
        recipe, known = RECIPES[self.recipe], DATA_SETS.get(self.data)
        adapted = known.adapt(recipe) if known else recipe
        return Arguments(
            data=tyro.MISSING,
            out=tyro.MISSING,
            recipe_name=self.recipe,
            recipe=adapted,
            architecture=Architecture(activation=ACTIVATION_OF_RECIPE[self.recipe]),
        )


def parse(given: Sequence[str] | None = None) -> Arguments:
    """The arguments on the command line, or `given`; what cannot be read or makes no sense exits with a message.

    Every field of `Recipe` is an option, preset as --recipe and --data have it; None switches off what can be off.
    With --resume all are preset as the run has them. Raises CheckpointError where there is no run, and ArgumentError
    for an option that says otherwise.
    """
    preset, _ = tyro.cli(Preset, args=given, prog=PROGRAM, add_help=False, return_unknown_args=True)
    default = preset.arguments()
    arguments = tyro.cli(Arguments, args=given, prog=PROGRAM, default=default)
    if arguments.resume:
        _check_is_as_begun(arguments, default)
    return arguments


def _as_begun(config: RunConfig) -> Arguments:
    """What a run was begun with."""
    network = {one.name: getattr(config.model, one.name) for one in fields(Architecture)}
    return Arguments(
        data=tyro.MISSING,
        out=tyro.MISSING,
        recipe_name=config.recipe_name,
        recipe=config.recipe,
        image_shape=config.image_shape,
        jpeg_scale=config.jpeg_scale,
        extra=config.extra,
        architecture=Architecture(**network),
        start=None if config.start is None else Path(config.start),
        data_name=config.data_name,
        seed=config.seed,
    )


def _check_is_as_begun(arguments: Arguments, begun: Arguments) -> None:
    before = _choices(begun)
    changed = [
        f"{name} {before[name]}, not {value}" for name, value in _choices(arguments).items() if value != before[name]
    ]
    if changed:
        raise ArgumentError(
            f"{arguments.out} was begun with {'; '.join(changed)}. A run goes on as it was begun: leave that out, or "
            f"begin another one, with --start {arguments.out} from its best weights"
        )


def _choices(arguments: Arguments) -> dict[str, Any]:
    """What shapes a run, by the names of the options."""
    choices = vars(arguments) | vars(arguments.recipe) | vars(arguments.architecture.spelt_out)
    choices |= {"recipe": choices.pop("recipe_name"), "model": choices.pop("name")}
    return {name: value for name, value in choices.items() if name not in OF_NO_CONSEQUENCE | {"architecture"}}
