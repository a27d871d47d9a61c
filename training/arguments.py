"""The arguments of python -m training: those of a run, and every choice of its recipe."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from training.data_sets import DATA_SETS
from training.decoding import JpegScale
from training.recipes import RECIPES, Recipe, RecipeName

PROGRAM = "python -m training"


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
    model: str = "resnet18"
    """resnet18, resnet50, vgg16 or wide_resnet34_10."""
    width: int | None = None
    """Channels of the first stage; the paper's by default."""
    activation: str | None = None
    """relu or silu; by default silu for the recipe strong, else relu."""
    fsr: bool = True
    """Insert FSR modules."""
    after: tuple[str, ...] | None = None
    """Submodules that FSR follows, such as layer3 layer4; the paper's place by default."""
    tau: float = 0.1
    """Temperature of the Gumbel softmax (Eq. 2)."""
    mask: str = "gumbel"
    """gumbel (Eq. 2), binary (Eq. 8), random, greedy or none: how FSR parts the features (Tables A6 and A7)."""
    recalibration: bool = True
    """Recalibrate the non-robust feature, or drop it (Table 6)."""
    rival: str | None = None
    """fd, cas or cifs instead of FSR, with --no-fsr (Table 4)."""
    start: Path | None = None
    """Run folder whose best weights to start from, of the same network; by default random ones."""
    data_name: str | None = None
    """What the data is called in reports; the last part of --data by default."""
    seed: int = 0
    resume: bool = False
    """Go on with the run in --out, at most one epoch back; its own settings hold."""
    compile: bool = False
    """Compile the attack, most of the work, with torch.compile."""
    deterministic: bool = False
    """Use deterministic algorithms only: the same losses on every run with this seed on this machine."""
    tensorboard: bool = False
    """Write the history for TensorBoard too, into the run folder."""
    recipe: tyro.conf.OmitArgPrefixes[Recipe] = RECIPES["fast"]

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; expected 0 or more")


@dataclass(frozen=True)
class Preset:
    """What decides the values that a recipe's options have unless they are given."""

    recipe: RecipeName = "fast"
    data: str = ""

    def values(self) -> Recipe:
        """The recipe, adapted to a data set that is known by name."""
        recipe, known = RECIPES[self.recipe], DATA_SETS.get(self.data)
        return known.adapt(recipe) if known else recipe


def parse(given: Sequence[str] | None = None) -> Arguments:
    """The arguments on the command line, or `given`; what cannot be read or makes no sense exits with a message.

    Every field of `Recipe` is an option, preset as --recipe and --data have it; None switches off what can be off.
    """
    preset, _ = tyro.cli(Preset, args=given, prog=PROGRAM, add_help=False, return_unknown_args=True)
    default = Arguments(data=tyro.MISSING, out=tyro.MISSING, recipe_name=preset.recipe, recipe=preset.values())
    return tyro.cli(Arguments, args=given, prog=PROGRAM, default=default)
