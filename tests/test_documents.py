"""Tables of the documentation against what they describe: settings, metrics, and figures in the manifest that ships."""

import json
import re

import pytest
from servers import ROOT

from fsr_serve.settings import Settings

SERVING, CHECKS, README = ((ROOT / name).read_text() for name in ("docs/serving.md", "docs/checks.md", "README.md"))
MANIFEST = json.loads((ROOT / "models" / "cifar10-fsr" / "1" / "manifest.json").read_text())

ATTACKS = {
    "none": "clean",
    "FGSM": "fgsm",
    "PGD-20": "pgd20",
    "PGD-100": "pgd100",
    "C&W (margin), 30 steps": "cw",
    "Square, 1,000 queries": "square",
}
"""How the README calls them."""


def rows(text, first):
    """Cells of the table whose head begins with `first`."""
    _, found, rest = text.partition(f"| {first} |")
    assert found, first
    lines = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def shown(value, text):
    """Whether the text is that number, rounded to as many places as the text has."""
    return f"{value:.{len(text.partition('.')[2])}f}" == text


def test_every_setting_is_in_the_table_with_its_default():
    table = {name.strip("`"): default for name, default, _ in rows(SERVING, "variable")}
    fields = {f"FSR_{name.upper()}": field.default for name, field in Settings.model_fields.items()}
    assert table.keys() == fields.keys() | {"FSR_SETTINGS"}
    for name, default in fields.items():
        if isinstance(default, bool):
            assert table[name] == str(default).lower()
        elif isinstance(default, int | float):
            assert table[name] == f"{default:g}" or table[name] == str(default), name
        elif isinstance(default, str):
            assert table[name] == f"`{default}`", name


def test_every_metric_is_in_the_table(client):
    """Prometheus adds the ending itself to the names of counters."""
    described = {name for cell, *_ in rows(SERVING, "name | labels") for name in re.findall(r"`(fsr_\w+)`", cell)}
    served = set(re.findall(r"^# TYPE (fsr_\w+) ", client.get("/metrics").text, re.M))
    served = {name for name in served if not name.endswith("_created")}
    assert served == described


def test_the_accuracies_of_the_readme_are_those_of_the_manifest():
    found = {(one["attack"], one["n"], one["precision"]): one["accuracy"] for one in MANIFEST["accuracies"]}
    of_checkpoint = {(one["attack"], one["n"]): one["accuracy"] for one in MANIFEST["checkpoint_accuracies"]}
    compared = 0
    for name, n, in_torch, in_fp32, in_bf16, _ in rows(README, "attack | n"):
        key = ATTACKS.get(name), int(n.replace(",", ""))
        for precision, told in {"fp32": in_fp32, "bf16": in_bf16}.items():
            if told:
                assert shown(100 * found[*key, precision], told.removesuffix(" %")), (name, n, precision)
                compared += 1
        if in_torch and key in of_checkpoint:
            assert shown(100 * of_checkpoint[key], in_torch.removesuffix(" %")), (name, n)
    assert compared == 8 + 5


def test_the_evaluation_that_the_readme_shows_is_the_one_in_the_manifest():
    figures = re.findall(r"^(clean|fgsm|pgd20) +([\d.]+)% +([\d.]+)% - ([\d.]+)%", README, re.M)
    assert [name for name, *_ in figures] == ["clean", "fgsm", "pgd20"]
    for name, *texts in figures:
        (one,) = (one for one in MANIFEST["checkpoint_accuracies"] if (one["attack"], one["n"]) == (name, 5000))
        for text, value in zip(texts, (one["accuracy"], one["low"], one["high"]), strict=True):
            assert shown(100 * value, text), name


def row_of(check):
    (cells,) = (cells for cells in rows(CHECKS, "check, set to 1 % false alarms") if cells[0] == f"`{check}`")
    return cells


def assert_is_shown(check, attack, cell):
    """As a share with its interval; returns the figure."""
    (one,) = (
        one
        for one in MANIFEST["checks"]
        if (one["check"], one["attack"], one["false_alarm_rate"]) == (check, attack, 0.01)
    )
    texts = re.match(r"([\d.]+) % \(([\d.]+) - ([\d.]+)\)", cell).groups()
    for text, value in zip(texts, (one["suspicious"], one["low"], one["high"]), strict=True):
        assert shown(100 * value, text), attack
    return one


@pytest.mark.parametrize("check", ["confidence", "separation", "probe"])
def test_the_figures_of_a_check_are_those_of_the_manifest(check):
    _, alarms, pgd, pgd_auroc, cw, cw_auroc, *_ = row_of(check)
    assert_is_shown(check, "clean", alarms)
    assert shown(assert_is_shown(check, "pgd20", pgd)["auroc"], pgd_auroc)
    assert shown(assert_is_shown(check, "cw", cw)["auroc"], cw_auroc)


def test_the_figures_of_the_history_are_those_of_the_manifest():
    _, alarms, *_, square, disguised = row_of("history")
    assert_is_shown("history", "clean", alarms)
    for attack, cell in (("square", square), ("disguised_square", disguised)):
        one = assert_is_shown("history", attack, cell)
        assert f"after {one['queries']:g} queries" in cell
        assert (one["n"], one["accepted_and_wrong"]) == (34, 0)
