"""A table as a picture: a panel per measure, a line per method, the paper's figure and ours beside each other."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D

from training.evaluation.lines import Figure, Line
from training.evaluation.table_files import Paper, asked, place_of
from training.evaluation.tables import Measure, Row, Table

PAPER, GRID, NOT_RUN = "#8a8f98", "#e4e6ea", "#9aa0a8"
COLOURS = {"best": "#1f5fbf", "last": "#d9731a", None: "#1f5fbf"}
OFFSETS = {"best": 0.0, "last": 0.24, None: 0.0}
PAPER_OFFSET = -0.24
LEGEND_WIDTH = 8.5
"""Inches that the legend needs."""


def plot(table: Table, lines: Sequence[Line], paper: Paper, path: Path) -> None:
    """Draw a PNG at `path`."""
    places = [(place, list(rows)) for place, rows in groupby(table.rows, key=place_of)]
    heights = [len(rows) + 0.6 for _, rows in places]
    longest = max(len(row.method) for row in table.rows)
    width = 1.6 + 0.075 * longest + 1.75 * len(table.measures)
    size = (max(width, LEGEND_WIDTH), 1.0 + 0.52 * sum(heights))
    picture = Picture(figsize=size, layout="constrained")
    picture.suptitle(f"{table.name}: {table.title}", fontsize=12, fontweight="bold", x=0.01, ha="left")
    panels = picture.subplots(len(places), len(table.measures), squeeze=False, sharex="col", height_ratios=heights)
    for (place, rows), panel_row in zip(places, panels, strict=True):
        for axes, measure in zip(panel_row, table.measures, strict=True):
            _draw(axes, table, rows, measure, lines, paper)
            axes.tick_params(labelbottom=True)
        _label(panel_row[0], rows, lines)
        panel_row[0].set_ylabel(place, fontsize=8.5, color="#555a62")
    for axes, measure in zip(panels[0], table.measures, strict=True):
        unit = "" if measure.unit == "%" else f", {measure.unit}"
        axes.set_title(f"{measure.heading}{unit}", fontsize=9, loc="left")
    picture.legend(handles=_legend(lines), loc="outside lower right", ncols=4, frameon=False, fontsize=8.5)
    part = path.with_suffix(".part")
    picture.savefig(part, format="png", dpi=150, facecolor="white")
    part.replace(path)


def _draw(axes: Axes, table: Table, rows: Sequence[Row], measure: Measure, lines: Sequence[Line], paper: Paper) -> None:
    for place, row in enumerate(rows):
        axes.axhspan(place - 0.5, place + 0.5, color="#f6f7f9" if place % 2 else "white", zorder=0)
        own = [line for line in lines if line.row is row]
        printed = paper.get(asked(table, row, measure))
        if printed is not None:
            height = place + (PAPER_OFFSET if own else 0.0)
            axes.plot(float(printed), height, "D", color=PAPER, ms=5, mfc="white", mew=1.4, zorder=3)
        for line in own:
            if measure.name in line.figures:
                _point(axes, line.figures[measure.name], place, line)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks([])
    axes.margins(x=0.12)
    axes.grid(axis="x", color=GRID, lw=0.8, zorder=1)
    axes.tick_params(axis="x", labelsize=8, length=0, colors="#555a62")
    axes.locator_params(axis="x", nbins=4)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


def _point(axes: Axes, figure: Figure, place: int, line: Line) -> None:
    height, colour = place + OFFSETS[line.weights], COLOURS[line.weights]
    if figure.low is not None and figure.high is not None:
        axes.plot([figure.low, figure.high], [height, height], color=colour, lw=1.6, alpha=0.55, zorder=2)
    axes.plot(figure.value, height, "o", color=colour, ms=5, zorder=4)


def _label(axes: Axes, rows: Sequence[Row], lines: Sequence[Line]) -> None:
    """Methods at the left; those without any figure of ours in grey."""
    axes.set_yticks(range(len(rows)), [row.method.replace("_", " ") for row in rows], fontsize=9)
    axes.tick_params(axis="y", length=0)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        if not any(line.row is row for line in lines):
            label.set_color(NOT_RUN)


def _legend(lines: Sequence[Line]) -> list[Line2D]:
    dots = [Line2D([], [], marker="D", ls="", color=PAPER, mfc="white", mew=1.4, ms=5, label="the paper")]
    kinds = [kind for kind in COLOURS if any(line.weights == kind for line in lines)]
    for kind in kinds:
        label = f"ours, {kind} weights" if kind else "ours"
        dots.append(Line2D([], [], marker="o", lw=1.6, color=COLOURS[kind], ms=5, label=label))
    return [*dots, Line2D([], [], ls="", label="bars: 95 % intervals; grey methods: not run")]
