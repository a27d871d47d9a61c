"""Table 5b: how often the nearest natural training images tell an image's class, for each of FSR's features."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from training.evaluation.nearest_neighbours import knn_answers
from training.evaluation.pooled import Seen
from training.evaluation.statistics import Interval, wilson
from training.models.separated import FeatureName

KS = (5, 20)

Among = Literal["same", "output"]
"""The paper embeds each feature "among the features of natural images": the same feature of theirs, or their f~?

It does not say, so both are measured.
"""


@dataclass(frozen=True)
class NeighbourAccuracy:
    """Weighted k-NN accuracy of one feature of `images` ("clean" or "attacked")."""

    feature: FeatureName
    among: Among
    images: str
    k: int
    n: int
    interval: Interval


def neighbour_accuracies(
    seen: Mapping[str, Seen],
    labels: Tensor,
    training: Seen,
    training_labels: Tensor,
    classes: int,
    *,
    progress: Callable[[int], object] = lambda features: None,
) -> list[NeighbourAccuracy]:
    """Of the test images as they are `seen`, with `labels` (n,), among natural training images with theirs.

    `progress` is told 1 after each feature.
    """
    rows = []
    for images, tests in seen.items():
        for feature, queries in tests.pooled.items():
            amongs: tuple[Among, ...] = ("same",) if feature == "output" else ("same", "output")
            for among in amongs:
                neighbours = training.pooled[feature if among == "same" else "output"]
                answers = knn_answers(queries, neighbours, training_labels, ks=KS, classes=classes)
                rows += [
                    NeighbourAccuracy(
                        feature, among, images, k, len(labels), wilson(int((found == labels).sum()), len(labels))
                    )
                    for k, found in answers.items()
                ]
            progress(1)
    return rows
