"""What commands start from: a run, its data, a new folder, arguments in range; or a message saying why not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import torch

from training.attacks import Attack
from training.checkpoint import CheckpointError, RunConfig, RunFolder, Weights
from training.data import ImageData, load_images
from training.evaluation.protocol import Budget
from training.evaluation.results import SPLIT, weights_sha256
from training.evaluation.suite import (
    MASKS_OF,
    TRANSFERS,
    CheckpointAttack,
    attack_named,
    definition_of,
    is_possible,
    queries_of,
)
from training.models import FSRNet
from training.models.separated import fsr_modules
from training.source import DataError


@dataclass(frozen=True)
class Inspected:
    """A network with FSR in eval mode, and where it came from."""

    path: Path
    weights: Weights
    config: RunConfig
    model: FSRNet

    @property
    def description(self) -> str:
        model = self.config.model
        digest = weights_sha256(self.path, self.weights)[:12]
        return (
            f"{self.path}: {model.description} (mask {model.mask}, tau {model.tau:g}), {self.weights} weights "
            f"(SHA-256 {digest}), recipe {self.config.recipe_name}"
        )


@dataclass(frozen=True)
class Threat:
    """An attack by name, with what decides its images."""

    attack: CheckpointAttack
    epsilon: float
    seed: int

    def check_against(self, run: Inspected) -> None:
        """Raises DataError for attacks that are crafted on another network, or that `run` has nothing for."""
        if self.attack in TRANSFERS:
            raise DataError(f"attack is {self.attack!r}, which is crafted on another network; choose a white-box one")
        check_attacks([self.attack], run.path, run.config)

    def build(self, image_shape: tuple[int, int]) -> Attack:
        return attack_named(
            self.attack, epsilon=self.epsilon, seed=self.seed, image_shape=image_shape, budget=self._budget
        )

    def describe(self, num_classes: int, batch: int) -> str:
        """In words, on a network of so many classes, so many images at a time."""
        definition = definition_of(self.attack, self._budget, num_classes, batch)
        return (
            f"{self.attack} ({definition}), L-infinity epsilon {self.epsilon * 255:g}/255, seed {self.seed}, "
            f"on the whole network, torch {torch.__version__}, float32"
        )

    @property
    def _budget(self) -> Budget:
        return Budget(queries_of(self.attack))


def open_run(path: Path, weights: Weights) -> Inspected:
    """Raises CheckpointError for a folder that is no run, or a network without FSR."""
    folder = RunFolder(path)
    config = folder.config()
    model = folder.load_model(weights)
    if not fsr_modules(model):
        raise CheckpointError(
            f"{path} holds {config.model.name} without FSR; expected a network whose FSR modules can be looked into. "
            "Train one without --no-fsr"
        )
    return Inspected(path, weights, config, model)


def open_data(run: Path, config: RunConfig, source: str | None, split: str) -> tuple[ImageData, str]:
    """One split of `source`, by default of the run's own data, and its name for reports.

    Raises DataError where the split cannot be read or its classes are not those of the run.
    """
    data = load_images(source or config.data, split, config.image_shape, config.jpeg_scale)
    if data.classes != config.classes:
        raise DataError(
            f"the data has the {len(data.classes)} classes {', '.join(data.classes[:10])}; {run} was "
            f"trained on the {len(config.classes)} classes {', '.join(config.classes[:10])}. Say by --data where "
            "images of those classes lie"
        )
    name = config.data_name if source in (None, config.data) else source
    return data, f"{name}{SPLIT}{split}"


def check_attacks(names: Sequence[CheckpointAttack], path: Path, config: RunConfig) -> None:
    """Raises DataError for attacks that the network in `path` has nothing for, or whose package is not installed."""
    model = config.model
    without = [name for name in names if not is_possible(name, replace(model, mask="gumbel"))]
    if without:
        raise DataError(
            f"{', '.join(without)} attack the masks and heads of FSR, which {path} has not. Name others by --attacks"
        )
    for name in names:
        if not is_possible(name, model):
            raise DataError(
                f"{name} goes through masks of the kind {' or '.join(MASKS_OF[name])}; the mask of "
                f"{path} is {model.mask}. Leave it out"
            )
    if "autoattack" in names and find_spec("pyautoattack") is None:
        raise DataError("autoattack needs pyautoattack. Install it with: pip install '.[eval]'")


def spread(data: ImageData, count: int | None, option: str, *, least: int = 1, most: int | None = None) -> ImageData:
    """`count` images spread evenly over the data, all for None. Raises DataError beyond `least` to all (or `most`)."""
    chosen = len(data) if count is None else count
    most = len(data) if most is None else min(most, len(data))
    if not least <= chosen <= most:
        raise DataError(f"{option} is {chosen}; expected {least} to {most}")
    return data.spread(chosen)


def check_epsilon(epsilon: float) -> None:
    if not 0 < epsilon <= 1:
        raise DataError(f"epsilon is {epsilon}; expected a bound above 0 and at most 1 ([0, 1] pixels)")


def check_counts(arguments: object, *names: str) -> None:
    """Raises DataError for a field below 1; None is none."""
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise DataError(f"{name} is {value}; expected 1 or more")


def check_seed(seed: int) -> None:
    if seed < 0:
        raise DataError(f"seed is {seed}; expected 0 or more")


def check_is_new(out: Path) -> None:
    """Raises FileExistsError where there is something already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is there already; choose another --out, or empty it")
