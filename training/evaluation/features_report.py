"""What python -m training.evaluation features writes: Markdown, and the numbers as CSV."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from training.evaluation.mask_statistics import BINS, SATURATED_SCORE, MaskStatistics
from training.evaluation.nearest_neighbours import GAMMA
from training.evaluation.neighbour_accuracies import KS, Among, NeighbourAccuracy
from training.evaluation.paper import Asked, paper_figures
from training.evaluation.statistics import Interval
from training.models.separated import SYMBOLS

AMONG: Mapping[Among, str] = {"same": "the same feature of them", "output": "their f~"}


def markdown(
    given: Iterable[str],
    own: Mapping[str, Interval],
    rows: Sequence[NeighbourAccuracy],
    masks: Mapping[str, MaskStatistics],
) -> str:
    """The report: what was `given`, the network's own accuracies, k-NN accuracies and mask figures by images."""
    paper = paper_figures()
    lines = ["# Inside FSR", "", *(f"- {line}" for line in given)]
    lines += [f"- the network's own answers on {images} images: {_percent(own[images])}" for images in own]
    for among, words in AMONG.items():
        chosen = [row for row in rows if row.among == among]
        lines += ["", f"## Weighted k-NN among clean training images: {words} (gamma {GAMMA}), beside Table 5b", ""]
        columns = [(images, k) for images in own for k in KS]
        lines += _table(
            ["feature", *(f"{images}, {k}-NN" for images, k in columns), *(f"paper, {k}-NN" for k in KS)],
            [
                [
                    f"{feature} ({SYMBOLS[feature]})",
                    *(
                        _percent(row.interval)
                        for images, k in columns
                        for row in chosen
                        if (row.feature, row.images, row.k) == (feature, images, k)
                    ),
                    *(paper.get(Asked("5", "cifar10", "resnet18", f"{feature}_feature", f"knn{k}"), "-") for k in KS),
                ]
                for feature in dict.fromkeys(row.feature for row in chosen)
            ],
        )
    lines += ["", "## Mask", ""]
    lines += _table(
        ["", *masks],
        [
            ["units", *(f"{mask.units:,}" for mask in masks.values())],
            ["units with m < 1/2 (non-robust)", *(f"{mask.nonrobust_share:.2%}" for mask in masks.values())],
            [
                f"units with abs(r) > {SATURATED_SCORE:g} (saturated)",
                *(
                    "no scores" if mask.saturated_share is None else f"{mask.saturated_share:.2%}"
                    for mask in masks.values()
                ),
            ],
            ["non-robust share of abs(f)", *(f"{mask.mass:.2%}" for mask in masks.values())],
        ],
    )
    return "\n".join([*lines, "", "![](features.png)", ""])


def write_numbers(out: Path, rows: Sequence[NeighbourAccuracy], masks: Mapping[str, MaskStatistics]) -> None:
    """neighbours.csv, mask_histogram.csv and mask_channels.csv in `out`; accuracies and shares as fractions."""
    write_csv(
        out / "neighbours.csv",
        ["feature", "among", "images", "k", "n", *Interval._fields],
        ([row.feature, row.among, row.images, row.k, row.n, *row.interval] for row in rows),
    )
    edges = np.linspace(0, 1, BINS + 1)
    write_csv(
        out / "mask_histogram.csv",
        ["images", "from", "to", "units", "share"],
        (
            [images, *(float(edge) for edge in edges[index : index + 2].round(4)), int(count), float(share)]
            for images, mask in masks.items()
            for index, (count, share) in enumerate(zip(mask.counts, mask.shares, strict=True))
        ),
    )
    write_csv(
        out / "mask_channels.csv",
        ["images", "channel", "nonrobust_share"],
        (
            [images, channel, float(share)]
            for images, mask in masks.items()
            for channel, share in enumerate(mask.channel_mass)
        ),
    )


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def _percent(interval: Interval) -> str:
    return f"{interval.accuracy:.2%} ({interval.low:.2%} - {interval.high:.2%})"
