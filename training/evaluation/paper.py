"""The figures of the paper, arXiv 2303.13846, as data: Tables 1 to 7 and A1 to A7, and the times of section 4.4."""

import csv
from collections.abc import Mapping
from importlib.resources import files
from typing import NamedTuple


class Asked(NamedTuple):
    """What identifies a figure; the words are those of paper_tables.csv."""

    table: str
    data_set: str
    backbone: str
    method: str
    measure: str


def paper_figures() -> Mapping[Asked, str]:
    """Every figure as it is printed: percent, millions of parameters, GFLOPs or seconds."""
    text = files("training.evaluation").joinpath("paper_tables.csv").read_text()
    _, *rows = csv.reader(text.splitlines())
    return {Asked(*row[:-1]): row[-1] for row in rows}
