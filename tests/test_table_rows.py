"""The rows of the paper's tables: its figures as data, and which runs are in which row."""

import csv
from pathlib import Path

import pytest
from made_up_runs import made_up

from training.evaluation.lines import is_in
from training.evaluation.paper import Asked, paper_figures
from training.evaluation.runs import load_run
from training.evaluation.tables import TABLES
from training.evaluation.tables_command import unused

FSR = {"fsr": True}
PLAIN = {"fsr": False}


def test_every_figure_of_the_paper_is_a_cell_and_every_cell_a_figure():
    text = Path("training/evaluation/paper_tables.csv").read_text()
    printed = {tuple(row[:-1]) for row in csv.reader(text.splitlines())} - {tuple(Asked._fields)}
    printed = {key for key in printed if key[0] != "table"}
    cells = {
        (table.number, row.data_set, row.backbone, row.method, measure.name)
        for table in TABLES.values()
        for row in table.rows
        for measure in table.measures
    }
    of_features = {key for key in printed if key[-1].startswith("knn")}
    assert cells == printed - of_features
    assert len(cells) + len(of_features) == len(paper_figures())


def test_figures_of_the_paper_are_as_printed():
    paper = paper_figures()
    assert paper[Asked("1", "cifar10", "resnet18", "AT+FSR", "pgd20")] == "52.47"
    assert paper[Asked("3", "cifar10", "resnet18", "MART", "nattack")] == "44.68"
    assert paper[Asked("A3", "cifar10", "wide_resnet34_10", "TRADES+FSR", "ensemble")] == "51.34"


KINDS = {
    "AT": (PLAIN, {}),
    "AT+FSR": (FSR, {}),
    "TRADES": (PLAIN, {"objective": "trades"}),
    "TRADES+FSR": (FSR, {"objective": "trades"}),
    "MART": (PLAIN, {"objective": "mart"}),
    "MART+FSR": (FSR, {"objective": "mart"}),
    "AT+FD": (PLAIN | {"rival": "fd"}, {}),
    "AT+CAS": (PLAIN | {"rival": "cas"}, {}),
    "AT+CIFS": (PLAIN | {"rival": "cifs"}, {}),
    "AT+FSR without separation": (FSR | {"mask": "none"}, {"lambda_sep": 0.0}),
    "AT+FSR without recalibration": (FSR | {"recalibration": False}, {"lambda_rec": 0.0}),
    "AT+FSR after block1": (FSR | {"after": ("layer1",)}, {}),
    "AT+FSR after block2": (FSR | {"after": ("layer2",)}, {}),
    "AT+FSR after block3": (FSR | {"after": ("layer3",)}, {}),
    "AT+FSR after block4": (FSR | {"after": ("layer4",)}, {}),
    "AT+FSR after block3 and block4": (FSR | {"after": ("layer3", "layer4")}, {}),
    "AT+FSR separation target uniform": (FSR, {"separation_target": "uniform"}),
    "AT+FSR separation target entropy_max": (FSR, {"separation_target": "entropy_max"}),
    "AT+FSR separation target average": (FSR, {"separation_target": "average"}),
    "AT+FSR separation target mispredicted": (FSR, {}),
    "AT+FSR binary mask": (FSR | {"mask": "binary"}, {}),
    "AT+FSR gumbel mask": (FSR, {}),
    "AT+FSR greedy": (FSR | {"mask": "greedy"}, {}),
    "AT+FSR random": (FSR | {"mask": "random"}, {}),
}
SAME = {"AT+FSR", "AT+FSR after block4", "AT+FSR separation target mispredicted", "AT+FSR gumbel mask"}


@pytest.mark.parametrize("method", KINDS)
def test_a_run_is_in_the_rows_of_its_method_and_in_no_other(method, tmp_path):
    model, recipe = KINDS[method]
    run = load_run(made_up(tmp_path / "run", model=model, recipe=recipe))
    found = {row.method for table in TABLES.values() for row in table.rows if is_in(run, row)}
    features = {"robust_feature", "nonrobust_feature", "recalibrated_feature", "output_feature"}
    assert found == (SAME | features if method in SAME else {method})


@pytest.mark.parametrize(
    ("model", "recipe"),
    [
        ({}, {"awp": 0.005}),
        ({}, {"friendly": 3}),
        ({}, {"curriculum": 5}),
        ({}, {"extra_fraction": 0.7}),
        ({"tau": 1.0}, {}),
        ({}, {"lambda_sep": 0.5}),
        (PLAIN, {"objective": "alp"}),
        (PLAIN | {"name": "resnet50"}, {}),
    ],
)
def test_a_run_of_another_method_is_named_with_what_it_is(model, recipe, tmp_path):
    run = made_up(tmp_path / "run", {("clean", "best"): 0.8}, model=model, recipe=recipe)
    (line,) = unused(load_run(run), [TABLES["1"], TABLES["A4"]])
    assert line.startswith(f"{run} matches no row that is asked for: data cifar10")
    for name, value in (model | recipe).items():
        assert name == "fsr" or (f"{value:g}" if isinstance(value, float) else str(value)) in line
