"""A table with our figures as Markdown, for people, and as CSV, one line per figure, for programs."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from training.evaluation.lines import Figure, Line, SeedLine
from training.evaluation.paper import Asked
from training.evaluation.runs import Run
from training.evaluation.tables import Measure, Row, Table

NOT_RUN = "not run"
DATA_SETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "svhn": "SVHN", "tiny-imagenet": "Tiny ImageNet"}
BACKBONES = {"resnet18": "ResNet-18", "vgg16": "VGG16", "wide_resnet34_10": "WideResNet-34-10"}
COLUMNS = [
    *(*Asked._fields, "unit", "paper", "ours", "low", "high", "n", "run", "weights", "seed", "attack_seed"),
    *("data", "trained_on", "recipe", "epochs", "width", "departures", "definition"),
]

Paper = Mapping[Asked, str]


def markdown(table: Table, lines: Sequence[Line], seeds: Sequence[SeedLine], paper: Paper) -> str:
    """The paper's figures and ours below each other, then how ours came about."""
    parts = [[f"# {table.name}: {table.title}"], [_units(table)]]
    for place, rows in groupby(table.rows, key=place_of):
        parts.append([f"## {place}"])
        parts.append(grid(table, list(rows), lines, seeds, paper))
    return joined([*parts, *how_ours_came_about([(table, lines)])])


def joined(parts: Sequence[Sequence[str]]) -> str:
    """Paragraphs, each of its lines."""
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def how_ours_came_about(parts: Sequence[tuple[Table, Sequence[Line]]]) -> list[list[str]]:
    """Paragraphs on the runs, what they do otherwise than the paper, and the attacks."""
    lines = [line for _, own in parts for line in own]
    runs = list({line.run.path: line.run for line in lines if line.run is not None}.values())
    none = [f"No run{' is needed' if lines else ' here fits a row'}."]
    definitions = dict.fromkeys(line for table, own in parts for line in _definitions(table, own))
    return [["## How ours came about"], _trained(runs) if runs else none, list(definitions)]


def place_of(row: Row) -> str:
    """Data set and backbone in words."""
    return f"{DATA_SETS[row.data_set]}, {BACKBONES[row.backbone]}"


OURS = (
    "Percent of images answered rightly; ours with the 95 % interval (Wilson) for n images. `best` are the "
    "weights of the best validation epoch, `last` those of the last; the paper's rule is unstated, its "
    "published code keeps the last. What ours do otherwise is listed below: compare with that in mind."
)


def _units(table: Table) -> str:
    if any(measure.attack for measure in table.measures):
        return OURS
    return "Ours beside the paper's. Times are of the machine they were measured on."


def grid(
    table: Table, rows: Sequence[Row], lines: Sequence[Line], seeds: Sequence[SeedLine], paper: Paper
) -> list[str]:
    """Of the rows, a Markdown table; without a line of the paper's where it prints no figure."""
    heads = [m.heading if m.unit == "%" else f"{m.heading}, {m.unit}" for m in table.measures]
    cells = [["method", "figures of", "n", *heads]]
    for row in rows:
        printed = [paper.get(asked(table, row, measure), "") for measure in table.measures]
        below = [["the paper", "", *printed]] if any(printed) else []
        own = [line for line in lines if line.row is row]
        below += [[source(line), _counts(line, table.measures), *_cells(line, table.measures)] for line in own]
        below += [[_seeds(line), "", *_spreads(line, table.measures)] for line in seeds if line.row is row]
        if not own:
            below.append([NOT_RUN, "", *[NOT_RUN for _ in table.measures]])
        cells += [["" if place else row.method, *line] for place, line in enumerate(below)]
    first, *rest = (f"| {' | '.join(line)} |" for line in cells)
    return [first, "|---|---|" + "---:|" * (len(heads) + 1), *rest]


def asked(table: Table, row: Row, measure: Measure) -> Asked:
    return Asked(table.number, row.data_set, row.backbone, row.method, measure.name)


def source(line: Line) -> str:
    """Run and weights in words."""
    if line.run is None:
        return "ours"
    return f"{line.run.path.name}, seed {line.run.config.seed}, {line.weights}"


def _seeds(line: SeedLine) -> str:
    return f"mean ± sd of seeds {', '.join(map(str, line.seeds))}, {line.weights}"


def _counts(line: Line, measures: Sequence[Measure]) -> str:
    """The number of images, per measure where they differ."""
    counts = {m.heading: line.figures[m.name].n for m in measures if m.name in line.figures}
    known = {heading: n for heading, n in counts.items() if n is not None}
    if len(set(known.values())) < 2:
        return "".join(f"{n:,}" for n in set(known.values()))
    return ", ".join(f"{heading} {n:,}" for heading, n in known.items())


def _cells(line: Line, measures: Sequence[Measure]) -> list[str]:
    return [cell(line.figures.get(measure.name), measure) for measure in measures]


def cell(figure: Figure | None, measure: Measure) -> str:
    if figure is None:
        return NOT_RUN
    text = f"{figure.value:.{measure.decimals}f}"
    return text if figure.low is None else f"**{text}** ({figure.low:.1f} - {figure.high:.1f})"


def _spreads(line: SeedLine, measures: Sequence[Measure]) -> list[str]:
    found = (line.spreads.get(measure.name) for measure in measures)
    return ["" if one is None else f"**{one.mean:.2f}** ± {one.deviation:.2f}" for one in found]


def _trained(runs: Sequence[Run]) -> list[str]:
    grid = [["run", "seed", "data", "recipe", "epochs", "width", "on", "departs from the paper by"]]
    grid += [
        [
            run.path.name,
            str(run.config.seed),
            run.config.data_name,
            run.config.recipe_name,
            str(run.epochs),
            str(run.width),
            run.hardware or "not noted",
            "; ".join(run.departures()) or "nothing",
        ]
        for run in runs
    ]
    first, *rest = (f"| {' | '.join(cells)} |" for cells in grid)
    return [first, "|---" * len(grid[0]) + "|", *rest]


def _definitions(table: Table, lines: Sequence[Line]) -> Iterator[str]:
    """How each measure was measured, and of which runs where that differs."""
    for measure in table.measures:
        found: dict[str, dict[str, None]] = {}
        for line in lines:
            if figure := line.figures.get(measure.name):
                how = f"{figure.definition}; {figure.data}" if figure.data else figure.definition
                found.setdefault(how, {})[source(line)] = None
        for how, sources in found.items():
            of = f" ({'; '.join(sources)})" if len(found) > 1 else ""
            yield f"- {measure.heading}: {how}{of}"


def as_csv(table: Table, lines: Sequence[Line], paper: Paper) -> str:
    """Every cell of the paper's table with each of our figures for it; `ours` is empty for what was not run."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for row in table.rows:
        own = [line for line in lines if line.row is row]
        for measure in table.measures:
            known = asked(table, row, measure)
            cells = known._asdict() | {"unit": measure.unit, "paper": paper.get(known, "")}
            found = [line for line in own if measure.name in line.figures]
            writer.writerows(cells | _csv_figure(line, line.figures[measure.name]) for line in found)
            if not found:
                writer.writerow(cells | {"definition": NOT_RUN})
    return file.getvalue()


def _csv_figure(line: Line, figure: Figure) -> dict[str, object]:
    cells: dict[str, object] = {
        "ours": round(figure.value, 4),
        "low": figure.low and round(figure.low, 4),
        "high": figure.high and round(figure.high, 4),
        "n": figure.n,
        "attack_seed": figure.seed,
        "data": figure.data,
        "weights": line.weights,
        "definition": figure.definition,
    }
    if line.run is None:
        return cells
    config = line.run.config
    return cells | {
        "run": line.run.path,
        "seed": config.seed,
        "trained_on": config.data_name,
        "recipe": config.recipe_name,
        "epochs": line.run.epochs,
        "width": line.run.width,
        "departures": "; ".join(line.run.departures()),
    }
