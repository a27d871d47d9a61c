"""A figure of the paper as Markdown, for people, and as CSV, one line per point, for programs."""

from collections.abc import Sequence

from training.evaluation.figures import Panel, PaperFigure
from training.evaluation.lines import Line, seed_lines
from training.evaluation.table_files import OURS, as_csv, grid, how_ours_came_about, joined

Drawn = tuple[Panel, Sequence[Line]]
"""A panel with the figures of ours that it shows."""


def figure_markdown(figure: PaperFigure, drawn: Sequence[Drawn]) -> str:
    """A table per panel, then how ours came about."""
    parts = [
        [f"# {figure.name}: {figure.title}"],
        [f"The paper draws its values and prints none, so none stand here; its text says: {figure.said}."],
        [OURS],
    ]
    for panel, lines in drawn:
        parts.append([f"## {panel.table.name}: {panel.table.title}"])
        parts.append([f"Measured by: {panel.command}"])
        parts.append(grid(panel.table, panel.table.rows, lines, seed_lines(lines), {}))
    return joined([*parts, *how_ours_came_about([(panel.table, lines) for panel, lines in drawn])])


def figure_csv(drawn: Sequence[Drawn]) -> str:
    """The columns of the tables' CSV; `paper` is empty."""
    files = [as_csv(panel.table, lines, {}).splitlines(keepends=True) for panel, lines in drawn]
    return "".join([files[0][0], *(line for file in files for line in file[1:])])
