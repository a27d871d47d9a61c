"""Compared runs as a picture: a panel per kind of weights, a line per attack and number of images, a point per pair."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.evaluation.compare import Comparison, titles

COLOURS = ("#1f5fbf", "#d9731a", "#2f8f5b", "#8a4fbf", "#8a8f98")
GRID = "#e4e6ea"


def plot(pairs: Sequence[tuple[str, Sequence[Comparison]]], path: Path) -> None:
    """Draw pairs, each by its name and what was compared, into a PNG at `path`."""
    of_all = [one for _, compared in pairs for one in compared]
    kinds = [weights for weights in ("best", "last") if any(one.first.weights == weights for one in of_all)]
    rows = {subject: f"{title}, {subject.n:,}" for subject, title in titles(of_all).items()}
    places = list(rows)
    height = 1.3 + len(rows) * (0.25 + 0.16 * len(pairs))
    picture = Figure(figsize=(2.0 + 3.6 * len(kinds), height), layout="constrained")
    panels = picture.subplots(1, len(kinds), squeeze=False, sharex=True, sharey=True)[0]
    for axes, weights in zip(panels, kinds, strict=True):
        axes.axvline(0, color="#555a62", lw=1)
        for number, (pair, compared) in enumerate(pairs):
            offset = 0.5 * ((number + 0.5) / len(pairs) - 0.5)
            for one in compared:
                if one.first.weights == weights:
                    _draw(axes, one, places.index(one.subject) + offset, COLOURS[number % len(COLOURS)], pair)
        axes.set_title(f"{weights} weights", fontsize=9, loc="left")
        axes.set_yticks(range(len(rows)), list(rows.values()), fontsize=9)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="x", color=GRID, lw=0.8)
        axes.tick_params(length=0, labelsize=8)
        for side in axes.spines.values():
            side.set_visible(False)
    picture.supxlabel("second - first, points of accuracy on the same images; bars: 95 % intervals", fontsize=8.5)
    handles = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    picture.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=2, frameon=False, fontsize=8.5)
    part = path.with_suffix(".part")
    picture.savefig(part, format="png", dpi=150, facecolor="white")
    part.replace(path)


def _draw(axes: Axes, one: Comparison, height: float, colour: str, label: str) -> None:
    value, low, high = (100 * part for part in one.difference)
    axes.plot([low, high], [height, height], color=colour, lw=1.6, alpha=0.55)
    axes.plot(value, height, "o", color=colour, ms=5, label=label)
