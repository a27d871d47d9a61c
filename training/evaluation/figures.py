"""What Figures A1 and A2 of the paper ask (appendices B and C), as tables whose rows or columns are the x axis.

The paper draws its values and prints none. What it tried is known as far as its text says: tau 0.1 and both weights 1,
at which robustness is highest, and an attack without a bound. The other values asked for here are ours; what runs
hold beside them is shown too.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from training.checkpoint import RunConfig
from training.evaluation.lines import is_in
from training.evaluation.protocol import EPSILON
from training.evaluation.runs import Run
from training.evaluation.tables import AT, AT_FSR, NATURAL, WHITE_BOX, Measure, Row, Table, is_trained

TAUS = (0.01, 0.05, 0.1, 0.5, 1.0)
LAMBDAS = (0.1, 0.5, 1.0, 2.0)
STEPS = (10, 20, 100, 1000)
LEVELS = (4, 8, 16, 32, 64)
"""Bounds in 255ths."""
UNBOUNDED = Measure("pgd100_unbounded", "no bound (PGD-100, 255/255)", "pgd100", epsilon=1.0)


@dataclass(frozen=True)
class Panel:
    """One plot: `ticks` name the rows of `table`, or its measures, in order."""

    table: Table
    axis: str
    along: Literal["rows", "measures"]
    ticks: tuple[str, ...]
    command: str
    """That measures what it shows."""


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper."""

    number: str
    title: str
    said: str
    """What the paper's text says of it."""
    panels: Callable[[Sequence[Run]], tuple[Panel, ...]]
    """With the values of the x axis that the runs hold, besides those asked for."""

    @property
    def name(self) -> str:
        return f"Figure {self.number}"


Swept = Literal["tau", "lambda_sep", "lambda_rec"]


def _over_hyperparameters(runs: Sequence[Run]) -> tuple[Panel, ...]:
    return (
        _swept("A1a", "tau", "Temperature of the Gumbel softmax", TAUS, runs),
        _swept("A1b", "lambda_sep", "Weight of the separation loss", LAMBDAS, runs),
        _swept("A1c", "lambda_rec", "Weight of the recalibration loss", LAMBDAS, runs),
    )


def _swept(number: str, name: Swept, title: str, asked: Iterable[float], runs: Sequence[Run]) -> Panel:
    """AT+FSR with other values of one hyperparameter, the others as in the paper."""
    held = {value for run in runs if is_in(run, _row(name, value := _value(run.config, name)))}
    values = sorted({*asked, *held})
    table = Table(number, title, tuple(_row(name, value) for value in values), (NATURAL, *WHITE_BOX), "Figure")
    command = f"python -m training --recipe paper --{name.replace('_', '-')} VALUE --data cifar10 --out RUN, then "
    command += "python -m training.evaluation RUN --attacks ensemble"
    return Panel(table, name, "rows", tuple(f"{value:g}" for value in values), command)


def _row(name: Swept, value: float) -> Row:
    changed: dict[str, Any] = {name: value}
    return Row("cifar10", "resnet18", f"AT+FSR {name} {value:g}", partial(is_trained, fsr=True, **changed))


def _value(config: RunConfig, name: Swept) -> float:
    return config.model.tau if name == "tau" else float(getattr(config.recipe, name))


def _over_strength(runs: Sequence[Run]) -> tuple[Panel, ...]:
    rows = tuple(Row("cifar10", "resnet18", name, method) for name, method in (("AT", AT), ("AT+FSR", AT_FSR)))
    steps = tuple(Measure(f"pgd{count}", f"PGD-{count}", f"pgd{count}") for count in STEPS)
    held = {
        round(255 * result.epsilon, 4)
        for run in runs
        if any(is_in(run, row) for row in rows)
        for result in run.results
        if result.attack == "pgd20"
    }
    levels = sorted({*map(float, LEVELS), *held})
    bounds = tuple(Measure(f"pgd20_{one:g}/255", f"PGD-20, {one:g}/255", "pgd20", epsilon=one / 255) for one in levels)
    return (
        Panel(
            Table("A2a", "Steps of PGD", rows, steps, "Figure"),
            f"steps of PGD at epsilon {255 * EPSILON:g}/255",
            "measures",
            tuple(map(str, STEPS)),
            f"python -m training.evaluation RUN --attacks {' '.join(f'pgd{count}' for count in STEPS)}",
        ),
        Panel(
            Table("A2b", "Perturbation bound", rows, (NATURAL, *bounds, UNBOUNDED), "Figure"),
            "epsilon in 255ths",
            "measures",
            ("0", *(f"{level:g}" for level in levels), "none"),
            f"python -m training.evaluation RUN --attacks pgd20 --epsilon {16 / 255:.7f} for 16/255, and so on; "
            "without a bound --attacks pgd100 --epsilon 1",
        ),
    )


FIGURES: Mapping[str, PaperFigure] = {
    figure.number: figure
    for figure in (
        PaperFigure(
            "A1",
            "Robustness over the hyperparameters of FSR",
            "robustness is highest at tau 0.1, lambda_sep 1 and lambda_rec 1, mostly rises with either weight until "
            "there, and tends to fall beyond",
            _over_hyperparameters,
        ),
        PaperFigure(
            "A2",
            "Robustness over the strength of the attack",
            "robustness falls with more steps and with a larger bound, and is 0 % without a bound",
            _over_strength,
        ),
    )
}
