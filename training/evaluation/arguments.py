"""Arguments that commands on one run have in common, and the images that they name."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from training.checkpoint import RunConfig, Weights
from training.data import ImageData
from training.evaluation.inspection import check_counts, check_seed, open_data, spread


@dataclass(frozen=True)
class RunArguments:
    """Which run is measured, on which images."""

    checkpoint: tyro.conf.Positional[Path]
    """Run folder made by python -m training."""
    data: str | None = None
    """Hugging Face id or folder; by default the data it was trained on."""
    split: str = "test"
    images: int | None = None
    """Use only so many images, spread evenly over the split."""
    weights: Weights = "best"
    seed: int = 0
    """Of all that is random."""

    def open_data(self, config: RunConfig) -> tuple[ImageData, str]:
        """All images of the split, and their name for reports. Raises DataError for a seed or images that cannot be."""
        check_seed(self.seed)
        return open_data(self.checkpoint, config, self.data, self.split)

    def open_images(self, config: RunConfig) -> tuple[ImageData, str]:
        """Those that are used. Raises DataError."""
        data, name = self.open_data(config)
        return spread(data, self.images, "images"), name


@dataclass(frozen=True)
class MeasuringArguments(RunArguments):
    """And how the work is parted, for commands that keep in the run folder which images were right."""

    batch: int | None = None
    """Images at a time, and between two saves; by default fewer for what takes long."""
    processes: int = 1
    """That share the batches, each with its part of the cores, and the GPUs in turn."""
    again: bool = False
    """Measure anew what was measured before. To go on after an interruption, leave it out."""

    def check(self) -> None:
        """Raises DataError for arguments out of range."""
        check_counts(self, "batch", "processes")
