"""The command python -m training.evaluation figures: Figures A1 and A2 of the paper, drawn from our runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from training.checkpoint import CheckpointError
from training.evaluation.command_line import tell
from training.evaluation.figure_files import figure_csv, figure_markdown
from training.evaluation.figure_plot import plot_figure
from training.evaluation.figures import FIGURES, PaperFigure
from training.evaluation.lines import lines_of
from training.evaluation.runs import Run
from training.evaluation.tables_command import TableError, runs_among, unused


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write Figures A1 and A2 of the paper from what our runs hold: Markdown, CSV and a picture of each.

    A1: accuracy over tau, lambda_sep and lambda_rec. A2: over the steps of PGD and over its bound, with FSR and
    without. A run serves every panel that it fits by its config.json; its figures are those that python -m
    training.evaluation left in its evaluation.json. What was not run says so. Figure 1 is drawn by: maps.
    """

    out: Path
    """Folder to write figure-A1.md, figure-A1.csv, figure-A1.png, ... into."""
    runs: tuple[Path, ...] = ()
    """Run folders made by python -m training, such as runs/*."""
    figure: tuple[str, ...] = tuple(FIGURES)
    """Figures by number: A1 and A2."""


def main(args: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(Arguments, prog="python -m training.evaluation figures", args=args)
    tell(lambda: write(arguments), CheckpointError, TableError)


def write(arguments: Arguments) -> Iterator[str]:
    """Write the files and say what became of each figure and each run. Raises TableError and CheckpointError."""
    figures = [named(number) for number in arguments.figure]
    runs, others = runs_among(arguments.runs)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        yield write_figure(figure, runs, arguments.out)
    yield from others
    tables = [panel.table for figure in figures for panel in figure.panels(runs)]
    for run in runs:
        yield from unused(run, tables)


def named(number: str) -> PaperFigure:
    """Raises TableError."""
    if number.upper() not in FIGURES:
        raise TableError(f"figure is {number!r}; expected some of {', '.join(FIGURES)}; Figure 1 is drawn by: maps")
    return FIGURES[number.upper()]


def write_figure(figure: PaperFigure, runs: Sequence[Run], out: Path) -> str:
    """Write its three files; returns what they hold in one line."""
    drawn = [(panel, lines_of(panel.table, runs)) for panel in figure.panels(runs)]
    path = out / f"figure-{figure.number}.md"
    path.write_text(figure_markdown(figure, drawn))
    path.with_suffix(".csv").write_text(figure_csv(drawn))
    plot_figure(figure, drawn, path.with_suffix(".png"))
    filled = sum(bool(lines) for _, lines in drawn)
    return f"{path}: figures of ours in {filled} of {len(drawn)} panels"
