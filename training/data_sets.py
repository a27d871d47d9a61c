"""The data sets of the paper by name, and what section 4.1 and the published code change for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # recipes import torch, and reading images must not
    from training.recipes import Augmentation, Recipe


@dataclass(frozen=True)
class DataSet:
    """Where a data set lies on the Hugging Face hub, and how a recipe is adapted to it."""

    hub_id: str
    configuration: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    """Our name of a split -> the data set's, where they differ."""
    augmentation: Augmentation | None = None
    step_share: float | None = None
    rate_share: float = 1.0
    """The learning rate as a share of that for CIFAR-10."""

    def adapt(self, recipe: Recipe) -> Recipe:
        """The recipe for this data set."""
        return replace(
            recipe,
            augmentation=self.augmentation or recipe.augmentation,
            step_share=self.step_share or recipe.step_share,
            learning_rate=recipe.learning_rate * self.rate_share,
        )


DATA_SETS: Mapping[str, DataSet] = {
    "cifar10": DataSet("uoft-cs/cifar10"),
    "cifar100": DataSet("uoft-cs/cifar100"),
    # not augmented; rate 0.01 and steps of epsilon / 8
    "svhn": DataSet("ufldl-stanford/svhn", "cropped_digits", augmentation="none", step_share=1 / 8, rate_share=1 / 10),
    "tiny-imagenet": DataSet("zh-plus/tiny-imagenet", splits={"test": "valid"}),
}
