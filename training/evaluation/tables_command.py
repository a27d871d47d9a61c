"""The command python -m training.evaluation tables: our figures beside those of the paper's tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from training.checkpoint import CheckpointError
from training.evaluation.command_line import tell
from training.evaluation.lines import is_in, lines_of, seed_lines
from training.evaluation.paper import paper_figures
from training.evaluation.runs import Run, load_run
from training.evaluation.table_files import as_csv, markdown
from training.evaluation.table_plot import plot
from training.evaluation.tables import TABLES, Table


class TableError(ValueError):
    """A table that the paper does not have; the message names those it has."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write tables of the paper with the figures of our runs beside the paper's: Markdown, CSV and a picture of each.

    A run serves every table that has a row for it, by what its config.json says; its figures are those that
    python -m training.evaluation left in its evaluation.json. What was not run says so.
    """

    out: Path
    """Folder to write table-1.md, table-1.csv, table-1.png, ... into."""
    runs: tuple[Path, ...] = ()
    """Run folders made by python -m training, such as runs/*."""
    table: tuple[str, ...] = tuple(TABLES)
    """Tables by number: 1 to 7, A1 to A7, and 4.4 for the times in the text of that section."""


def main(args: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(Arguments, prog="python -m training.evaluation tables", args=args)
    tell(lambda: write(arguments), CheckpointError, TableError)


def write(arguments: Arguments) -> Iterator[str]:
    """Write the files and say what became of each table and each run. Raises TableError and CheckpointError."""
    tables = [named(number) for number in arguments.table]
    runs, others = runs_among(arguments.runs)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for table in tables:
        yield write_table(table, runs, arguments.out)
    yield from others
    for run in runs:
        yield from unused(run, tables)


def runs_among(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """The runs, and what is said of the folders that are none. Raises CheckpointError for a damaged run."""
    found = [path for path in folders if (path / "config.json").exists()]
    others = [
        f"{path} is left out: it has no config.json; expected a run folder made by python -m training"
        for path in folders
        if path not in found
    ]
    return [load_run(path) for path in found], others


def named(number: str) -> Table:
    """Raises TableError."""
    if number.upper() not in TABLES:
        raise TableError(f"table is {number!r}; expected some of {', '.join(TABLES)}")
    return TABLES[number.upper()]


def write_table(table: Table, runs: Sequence[Run], out: Path) -> str:
    """Write its three files; returns what they hold in one line."""
    paper, lines = paper_figures(), lines_of(table, runs)
    path = out / f"table-{table.short}.md"
    path.write_text(markdown(table, lines, seed_lines(lines), paper))
    path.with_name(f"table-{table.short}.csv").write_text(as_csv(table, lines, paper))
    plot(table, lines, paper, path.with_name(f"table-{table.short}.png"))
    filled = sum(any(line.row is row for line in lines) for row in table.rows)
    return f"{path}: figures of ours for {filled} of {len(table.rows)} rows"


def unused(run: Run, tables: Sequence[Table]) -> Iterator[str]:
    """Why no table, or plot, holds the run, if none does."""
    fitting = [table.name for table in tables if any(is_in(run, row) for row in table.rows)]
    if not fitting:
        yield f"{run.path} matches no row that is asked for: {described(run)}"
    elif not any(lines_of(table, [run]) for table in tables if table.name in fitting):
        yield (
            f"{run.path} fits {', '.join(fitting)}, but nothing they ask for has been measured; "
            f"measure it with: python -m training.evaluation {run.path}"
        )


def described(run: Run) -> str:
    """What decides about rows, in words."""
    config = run.config
    recipe, model = config.recipe, config.model
    parts = [
        f"data {config.data_name}",
        model.name,
        f"objective {recipe.objective}",
        f"rival {model.rival}" * bool(model.rival),
    ]
    if model.fsr:
        parts.append(
            f"FSR after {' and '.join(model.after or ['the usual place'])}, mask {model.mask}, tau {model.tau:g}, "
            f"{'with' if model.recalibration else 'without'} recalibration, lambda_sep {recipe.lambda_sep:g}, "
            f"lambda_rec {recipe.lambda_rec:g}, separation target {recipe.separation_target}"
        )
    extras = {"awp": recipe.awp, "friendly": recipe.friendly, "curriculum": recipe.curriculum}
    parts += [f"{name} {value}" for name, value in extras.items() if value is not None]
    if recipe.extra_fraction:
        parts.append(f"extra fraction {recipe.extra_fraction:g}")
    return ", ".join(filter(None, parts))
