"""Run folders as reports see them: what was trained, how it departs from the paper, what was measured."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from training.checkpoint import RunConfig, RunFolder
from training.data import HELD_OUT
from training.data_sets import DATA_SETS
from training.evaluation.results import Result, load_results, weights_sha256
from training.models import BACKBONES
from training.objectives import OBJECTIVES
from training.recipes import RECIPES, Recipe

OF_THE_METHOD = {"objective", "lambda_sep", "lambda_rec", "separation_target"}
"""Fields of a recipe that tell the rows of a table apart."""
UNSAID = {"beta", "held_out", "validation_images"}
"""Fields for which the paper has no value."""
IS_IDLE: Mapping[str, Callable[[Recipe], bool]] = {
    "small_scale": lambda recipe: recipe.small_share == 0,
    "padding": lambda recipe: recipe.augmentation == "none",
    "awp_after": lambda recipe: recipe.awp is None,
    "warmup": lambda recipe: recipe.schedule != "one_cycle",
}
"""Fields that say nothing of a run where what they belong to is off."""


@dataclass(frozen=True)
class Run:
    """A run folder, read once."""

    path: Path
    config: RunConfig
    results: tuple[Result, ...]
    """Measured on the weights that are there now, or on ones that are no longer kept."""
    history: tuple[dict[str, Any], ...]
    hardware: str
    """What it was trained on; empty where it is not known."""
    formats: tuple[str, ...] = ()
    """Of its numbers in training, as far as they are known."""

    @cached_property
    def data_set(self) -> str | None:
        return data_set_of(self.config.data) or data_set_of(self.config.data_name)

    @property
    def width(self) -> int:
        """Channels of the first stage."""
        return self.config.model.width or BACKBONES[self.config.model.name].width

    @property
    def epochs(self) -> int:
        """Done so far, as many as the recipe has where no history is kept."""
        return len(self.history) or self.config.recipe.epochs

    @property
    def is_whole(self) -> bool:
        """Whether all epochs were done, as far as is known: with patience a run may end earlier."""
        return self.epochs == self.config.recipe.epochs or self.config.recipe.patience is not None

    @property
    def but_for_the_seed(self) -> RunConfig:
        """The same for runs that repeat each other with another seed."""
        return replace(self.config, model=self.config.model.spelt_out, seed=0, data="", data_name="")

    def departures(self) -> tuple[str, ...]:
        """What the paper (section 4.1, for this data set) does otherwise, in words."""
        config, known = self.config, DATA_SETS.get(self.data_set or "")
        paper = known.adapt(RECIPES["paper"]) if known else RECIPES["paper"]
        return tuple(_departures(self, asdict(config.recipe), asdict(paper)))


def _departures(run: Run, ours: dict[str, Any], paper: dict[str, Any]) -> Iterator[str]:
    config, width = run.config, BACKBONES[run.config.model.name].width
    if run.width != width:
        yield f"width {run.width}, not {width}"
    if run.epochs != ours["epochs"]:
        yield f"stopped after {run.epochs} of {ours['epochs']} epochs"
    recipe = config.recipe
    unsaid = OF_THE_METHOD | UNSAID | {name for name, is_idle in IS_IDLE.items() if is_idle(recipe)}
    for name, value in ours.items():
        if name not in unsaid and _word(value) != _word(paper[name]):
            yield f"{name.replace('_', ' ')} {_word(value)}, not {_word(paper[name])}"
    if own := OBJECTIVES[recipe.objective].beta:
        yield f"beta {_word(own if recipe.beta is None else recipe.beta)} (the paper gives none)"
    yield f"{_held_out(run)} images held out"
    yield from (f"trained in {format}" for format in run.formats if format != "float32")
    if config.model.activation != "relu":
        yield f"activation {config.model.activation}, not relu"
    if config.start is not None:
        yield f"started from {config.start}"


def _held_out(run: Run) -> str:
    if (count := run.config.recipe.held_out) is not None:
        return f"{count:,}"
    return f"{HELD_OUT:,}" if run.data_set else f"{HELD_OUT:,} or a tenth of the"


def _word(value: object) -> str:
    if isinstance(value, tuple):
        return " and ".join(map(_word, value))
    return f"{value:.4g}" if isinstance(value, float) else "none" if value is None else str(value)


def short_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Their last parts, as few as tell all of them apart: seed0/at and seed1/at."""
    found = set(paths)
    count, names = 1, {path: path.name for path in found}
    while len(set(names.values())) < len(found):
        count += 1
        names = {path: "/".join(path.parts[-count:]) for path in found}
    return names


def load_run(path: Path) -> Run:
    """Raises CheckpointError where the folder is none of a run, or damaged."""
    folder = RunFolder(path)
    parts = folder.environments()
    hardware = (part.get("gpu") or part.get("processor") for part in parts)
    formats = (part.get("format") for part in parts)
    return Run(
        path=path,
        config=folder.config(),
        results=tuple(_of_present_weights(path)),
        history=tuple(folder.history()),
        hardware=" and ".join(dict.fromkeys(filter(None, hardware))),
        formats=tuple(dict.fromkeys(filter(None, formats))),
    )


def _of_present_weights(path: Path) -> Iterator[Result]:
    digests: dict[str, str] = {}
    for result in load_results(path):
        kept = result.weights
        if kept not in digests and (path / f"{kept}.safetensors").exists():
            digests[kept] = weights_sha256(path, kept)
        if digests.get(kept, result.weights_sha256) == result.weights_sha256:
            yield result


def data_set_of(name: str) -> str | None:
    """The name in `DATA_SETS` of a Hub id, a folder or what reports call it: `CIFAR-10 (JPEG)` is cifar10."""
    for known, data_set in DATA_SETS.items():
        if name == data_set.hub_id:
            return known
    word = _plain(re.sub(r"\(.*\)$", "", Path(name).name))  # CIFAR-10-C is another data set
    return next((known for known in DATA_SETS if word == _plain(known)), None)


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())
