"""A figure of the paper as a picture: a panel per plot, our values over equally spaced places of the x axis."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D

from training.checkpoint import RunConfig
from training.evaluation.figure_files import Drawn
from training.evaluation.figures import Panel, PaperFigure
from training.evaluation.lines import Figure, Line
from training.evaluation.runs import Run, short_names
from training.evaluation.table_plot import GRID, NOT_RUN

COLOURS = ("#1f5fbf", "#d9731a", "#2a8a5a", "#8a4fbf", "#b03a48", "#5a6270", "#c2a21a", "#3aa0b0")
MARKERS = "osD^vP*X"
STYLES = {"best": "-", "last": ":"}


class Series(NamedTuple):
    """What one line of a plot joins."""

    what: str
    """Attack, or method and run; told by colour."""
    weights: str
    """Told by the line's style."""
    group: str
    """The first of the runs that differ in nothing but what is swept, and the seed; told by the marker."""


class Point(NamedTuple):
    place: int
    """On the x axis."""
    figure: Figure


Plotted = Mapping[Series, Sequence[Point]]


def plot_figure(figure: PaperFigure, drawn: Sequence[Drawn], path: Path) -> None:
    """Draw a PNG at `path`."""
    picture = Picture(figsize=(5.2 * len(drawn), 5.2), layout="constrained")
    picture.suptitle(f"{figure.name}: {figure.title}", fontsize=12, fontweight="bold", x=0.01, ha="left")
    panels = picture.subplots(1, len(drawn), squeeze=False, sharey=True)[0]
    of_all = [line for _, lines in drawn for line in lines]
    names = short_names(line.run.path for line in of_all if line.run is not None)
    groups = groups_of(of_all, names)
    plotted = [series_of(panel, lines, groups, names) for panel, lines in drawn]
    series = [one for panel in plotted for one in panel]
    colours = _told_apart([one.what for one in series], COLOURS)
    markers = _told_apart([one.group for one in series], MARKERS)
    for axes, (panel, _), found in zip(panels, drawn, plotted, strict=True):
        for one, points in found.items():
            _join(axes, points, colour=colours[one.what], marker=markers[one.group], style=STYLES[one.weights])
        _label(axes, panel, {point.place for points in found.values() for point in points})
    panels[0].set_ylabel("accuracy, % (bars: 95 % intervals)", fontsize=9)
    handles = [Line2D([], [], color=colour, lw=2, label=what) for what, colour in colours.items()]
    used = [kind for kind in STYLES if any(one.weights == kind for one in series)]
    handles += [Line2D([], [], color="black", ls=STYLES[kind], lw=1.2, label=f"{kind} weights") for kind in used]
    if len(markers) > 1:
        handles += [
            Line2D([], [], color="black", ls="", marker=marker, ms=5, label=f"trained as {group}")
            for group, marker in markers.items()
        ]
    if handles:
        picture.legend(handles=handles, loc="outside lower left", ncols=8, frameon=False, fontsize=8.5)
    part = path.with_suffix(".part")
    picture.savefig(part, format="png", dpi=150, facecolor="white")
    part.replace(path)


def groups_of(lines: Sequence[Line], names: Mapping[Path, str]) -> dict[RunConfig, str]:
    """The first run of each group that differs in nothing but what is swept, and the seed."""
    groups: dict[RunConfig, str] = {}
    for line in lines:
        if line.run is not None:
            groups.setdefault(_but_for_what_is_swept(line.run), names[line.run.path])
    return groups


def series_of(
    panel: Panel, lines: Sequence[Line], groups: Mapping[RunConfig, str], names: Mapping[Path, str]
) -> dict[Series, list[Point]]:
    """The points of a panel by what joins them: never best with last weights, nor runs trained otherwise."""
    found: dict[Series, list[Point]] = {}
    for line in lines:
        if line.run is None or line.weights is None:
            continue
        run = names[line.run.path]
        for column, measure in enumerate(panel.table.measures):
            if measure.name not in line.figures:
                continue
            if panel.along == "measures":
                series, place = Series(f"{line.row.method}: {run}", line.weights, ""), column
            else:
                group = groups[_but_for_what_is_swept(line.run)]
                series, place = Series(measure.heading, line.weights, group), panel.table.rows.index(line.row)
            found.setdefault(series, []).append(Point(place, line.figures[measure.name]))
    return found


def _but_for_what_is_swept(run: Run) -> RunConfig:
    config = run.but_for_the_seed
    recipe = replace(config.recipe, lambda_sep=1.0, lambda_rec=1.0)
    return replace(config, recipe=recipe, model=replace(config.model, tau=0.1))


def _told_apart(names: Sequence[str], signs: Sequence[str]) -> dict[str, str]:
    return {name: signs[index % len(signs)] for index, name in enumerate(dict.fromkeys(names))}


def _join(axes: Axes, points: Sequence[Point], *, colour: str, marker: str, style: str) -> None:
    """Every point with its interval, and a line through the means at each place."""
    places = sorted({point.place for point in points})
    means = [mean(point.figure.value for point in points if point.place == place) for place in places]
    axes.plot(places, means, style, color=colour, lw=1.2, zorder=2)
    for place, figure in points:
        axes.plot(place, figure.value, marker, color=colour, ms=5, zorder=3)
        if figure.low is not None and figure.high is not None:
            axes.plot([place, place], [figure.low, figure.high], color=colour, lw=1.6, alpha=0.35, zorder=1)


def _label(axes: Axes, panel: Panel, seen: set[int]) -> None:
    axes.set_title(f"{panel.table.name.removeprefix('Figure ')}: {panel.table.title}", fontsize=9.5, loc="left")
    axes.set_xlabel(panel.axis, fontsize=9)
    ticks = [tick if place in seen else f"{tick}\nnot run" for place, tick in enumerate(panel.ticks)]
    axes.set_xticks(range(len(ticks)), ticks, fontsize=8)
    for place, words in enumerate(axes.get_xticklabels()):
        words.set_color("black" if place in seen else NOT_RUN)
    axes.set_xlim(-0.5, len(ticks) - 0.5)
    axes.tick_params(labelleft=True, labelsize=8)
    axes.grid(color=GRID, lw=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if not seen:
        axes.text(0.5, 0.5, "not run", transform=axes.transAxes, ha="center", color=NOT_RUN, fontsize=14)
