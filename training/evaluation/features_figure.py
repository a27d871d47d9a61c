"""The picture of what is inside FSR: k-NN accuracies, mask values, and non-robust mass per channel."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from training.evaluation.mask_statistics import BINS, MaskStatistics
from training.evaluation.neighbour_accuracies import KS, NeighbourAccuracy
from training.models.separated import FeatureName

COLOURS = {"clean": "#0072B2", "attacked": "#D55E00"}  # blue, vermilion: apart for colour-blind readers too
LINES = {"clean": "-", "attacked": "--"}
BELOW = (0.5, -0.14)  # the axes, where no data can be
MARKERS = {5: "o", 20: "s"}
MATH: Mapping[FeatureName, str] = {
    "robust": "$f^+$",
    "nonrobust": "$f^-$",
    "recalibrated": r"$\tilde{f}^-$",
    "output": r"$\tilde{f}$",
}


def draw_features(rows: Sequence[NeighbourAccuracy], masks: Mapping[str, MaskStatistics], caption: str) -> Figure:
    """The rows among neighbours of the same feature, and the masks by the keys of `COLOURS`."""
    figure = Figure(figsize=(13, 5.2), layout="constrained")
    neighbours, histogram, channels = figure.subplots(1, 3)
    _draw_neighbours(neighbours, [row for row in rows if row.among == "same"])
    _draw_histogram(histogram, masks)
    _draw_channels(channels, masks)
    for axes in (neighbours, histogram, channels):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        axes.legend(frameon=False, fontsize=9, ncols=1 + (axes is neighbours), loc="upper center", bbox_to_anchor=BELOW)
    figure.supxlabel(textwrap.fill(caption, 170), fontsize=8.5, color="0.3")
    return figure


def _draw_neighbours(axes: Axes, rows: Sequence[NeighbourAccuracy]) -> None:
    features = list(dict.fromkeys(row.feature for row in rows))
    columns = [(images, k) for images in COLOURS for k in KS]
    for place, (images, k) in enumerate(columns):
        shown = [row for row in rows if (row.images, row.k) == (images, k)]
        middles = [row.interval.accuracy for row in shown]
        ends = [(row.interval.accuracy - row.interval.low, row.interval.high - row.interval.accuracy) for row in shown]
        axes.errorbar(
            [features.index(row.feature) + 0.16 * (place - (len(columns) - 1) / 2) for row in shown],
            middles,
            yerr=np.transpose(ends),
            fmt=MARKERS[k],
            markerfacecolor=COLOURS[images] if k == KS[0] else "white",
            color=COLOURS[images],
            markersize=6,
            capsize=2.5,
            label=f"{k}-NN, {images}",
        )
    axes.set_xticks(range(len(features)), [MATH[feature] for feature in features], fontsize=13)
    axes.set_xlim(-0.5, len(features) - 0.5)
    axes.set_ylim(0, 1)
    axes.set_ylabel("accuracy, 95 % interval")
    axes.set_title("Weighted k-NN among clean training images", fontsize=11)


def _draw_histogram(axes: Axes, masks: Mapping[str, MaskStatistics]) -> None:
    edges = np.linspace(0, 1, BINS + 1)
    for images, mask in masks.items():
        axes.stairs(
            mask.shares.numpy(),
            edges,
            baseline=None,
            color=COLOURS[images],
            linestyle=LINES[images],
            linewidth=1.8,
            label=f"{images}: {mask.nonrobust_share:.1%} of units below ½",
        )
    axes.set_yscale("log")
    axes.set_xlim(0, 1)
    axes.set_xlabel("mask m: 0 non-robust, 1 robust")
    axes.set_ylabel(f"share of units per {1 / BINS:g} of m, log scale")
    axes.set_title("Mask values", fontsize=11)


def _draw_channels(axes: Axes, masks: Mapping[str, MaskStatistics]) -> None:
    first = next(iter(masks.values())).channel_mass
    order = first.argsort(descending=True)
    order = order[~first[order].isnan()]
    for images, mask in masks.items():
        axes.plot(
            range(1, len(order) + 1),
            mask.channel_mass[order].numpy(),
            LINES[images] if images == "clean" else ".",
            color=COLOURS[images],
            markersize=4,
            label=f"{images}: {mask.mass:.1%} over all channels",
        )
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("active channels, by their share on clean images")
    axes.set_ylabel("non-robust share of |f|")
    axes.set_title("Mask mass per channel", fontsize=11)
