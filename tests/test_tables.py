"""Tables of the paper beside made-up runs: what is found, what is missing, what is refused."""

import csv
from pathlib import Path

import pytest
from made_up_runs import made_up, measured
from PIL import Image

from training.checkpoint import CheckpointError, RunFolder
from training.evaluation import tables_command
from training.evaluation.lines import is_in, lines_of, seed_lines
from training.evaluation.paper import Asked, paper_figures
from training.evaluation.results import save_result
from training.evaluation.runs import load_run
from training.evaluation.statistics import wilson
from training.evaluation.table_files import as_csv, markdown
from training.evaluation.tables import TABLES
from training.evaluation.tables_command import Arguments, TableError, unused, write

FSR = {"fsr": True}
PLAIN = {"fsr": False}


def text_of(number: str, *runs: Path) -> str:
    """The Markdown of a table."""
    lines = lines_of(TABLES[number], [load_run(run) for run in runs])
    return markdown(TABLES[number], lines, seed_lines(lines), paper_figures())


def rows_of(text: str, method: str) -> list[list[str]]:
    """Cells of the lines of a method: the paper's first, ours below."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    start = next(place for place, cells in enumerate(lines) if cells[:1] == [method])
    after = next(place for place in range(start + 1, len(lines) + 1) if lines[place : place + 1][0][:1] != [""])
    return lines[start:after]


def said_of(run: Path, *numbers: str) -> list[str]:
    """What is said of a run that no table holds."""
    return list(unused(load_run(run), [TABLES[number] for number in numbers]))


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
    (line,) = said_of(run, "1", "A4")
    assert line.startswith(f"{run} matches no row that is asked for: data cifar10")
    for name, value in (model | recipe).items():
        assert name == "fsr" or (f"{value:g}" if isinstance(value, float) else str(value)) in line


def test_one_run_fills_its_row_in_several_tables_and_the_rest_is_not_run(tmp_path):
    results = {("clean", "best"): 0.8, ("pgd20", "best"): 0.5, ("pgd20", "last"): 0.4}
    run = made_up(tmp_path / "mine", results, seed=3)
    paper, best, last = rows_of(text_of("1", run), "AT+FSR")
    low, high = (100 * end for end in wilson(500, 1000)[1:])
    assert paper[:4] == ["AT+FSR", "the paper", "", "81.46"]
    assert best[1:4] == ["mine, seed 3, best", "1,000", "**80.00** (77.4 - 82.4)"]
    assert best[5] == f"**50.00** ({low:.1f} - {high:.1f})"
    assert [best[place] for place in (4, 6, 7, 8)] == ["not run"] * 4
    assert last[1] == "mine, seed 3, last"
    assert (last[3], last[5][:9]) == ("not run", "**40.00**")
    for number, method in (
        ("4", "AT+FSR"),
        ("6", "AT+FSR"),
        ("A4", "AT+FSR after block4"),
        ("A6", "AT+FSR gumbel mask"),
    ):
        assert any("mine, seed 3, best" in cells for cells in rows_of(text_of(number, run), method))
    for method in ("AT", "TRADES+FSR", "MART"):
        assert rows_of(text_of("1", run), method)[1][1:] == ["not run", "", *["not run"] * 6]


def test_without_runs_every_cell_says_not_run():
    for table in TABLES.values():
        text = text_of(table.short)
        cells = len(table.rows) * len(table.measures)
        assert text.count("not run") == (0 if table.number == "7" else cells + len(table.rows))
        written = as_csv(table, lines_of(table, []), paper_figures())
        assert len(written.splitlines()) == 1 + cells
        assert written.count("not run") == (0 if table.number == "7" else cells)


@pytest.mark.slow
def test_every_table_is_written_with_a_picture(tmp_path):
    run = made_up(tmp_path / "run", {("clean", "best"): 0.8, ("clean", "last"): 0.7})
    said = list(write(Arguments(out=tmp_path, runs=(run,))))
    assert len(said) == len(TABLES)
    for number in TABLES:
        assert (tmp_path / f"table-{number}.md").stat().st_size > 300
        with Image.open(tmp_path / f"table-{number}.png") as picture:
            assert min(picture.size) > 200


def test_table_7_is_counted_without_any_run():
    paper, ours = rows_of(text_of("7"), "FSR")
    assert (paper[3:], ours[3:]) == (["16.52", "0.6701"], ["16.51", "0.6676"])


def test_the_csv_has_everything_that_a_figure_rests_on(tmp_path):
    run = load_run(made_up(tmp_path / "mine", {("pgd20", "last"): 0.5}, model={"width": 16}, recipe={"epochs": 5}))
    text = as_csv(TABLES["6"], lines_of(TABLES["6"], [run]), paper_figures())
    (found,) = [row for row in csv.DictReader(text.splitlines()) if row["ours"]]
    expected = {
        "table": "6",
        "method": "AT+FSR",
        "measure": "pgd20",
        "paper": "52.47",
        "ours": "50.0",
        "n": "1000",
        "weights": "last",
        "seed": "0",
        "width": "16",
        "epochs": "5",
        "recipe": "paper",
        "data": "cifar10",
        "departures": "width 16, not 64; epochs 5, not 100",
        "definition": "pgd20 as defined",
    }
    assert found.items() >= expected.items()
    assert float(found["low"]) < 50 < float(found["high"])


def test_what_departs_from_the_paper_stands_below_the_table(tmp_path):
    run = made_up(tmp_path / "mine", {("clean", "best"): 0.8}, model={"width": 16}, recipe={"attack": "n_fgsm"})
    RunFolder(run).append_history({"epoch": 1})
    assert "width 16, not 64; stopped after 1 of 100 epochs; attack n_fgsm, not pgd |" in text_of("1", run)


def test_three_seeds_are_summed_up_and_two_are_not(tmp_path):
    shares = {0: 0.4, 1: 0.5, 2: 0.6}
    runs = [load_run(made_up(tmp_path / f"{s}", {("fgsm", "best"): share}, seed=s)) for s, share in shares.items()]
    (line,) = seed_lines(lines_of(TABLES["A7"], runs))
    assert (line.seeds, line.spreads["fgsm"]) == ((0, 1, 2), pytest.approx((50, 10)))
    assert seed_lines(lines_of(TABLES["A7"], runs[:2])) == []


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(tmp_path):
    runs = [
        load_run(made_up(tmp_path / f"{s}", {("fgsm", "best"): 0.5}, seed=s, recipe={"epochs": 10 + s}))
        for s in range(3)
    ]
    assert seed_lines(lines_of(TABLES["A7"], runs)) == []


def test_seeds_measured_on_different_images_are_not_averaged(tmp_path):
    for seed in range(3):
        save_result(made_up(tmp_path / f"{seed}", seed=seed), measured("fgsm", data_sha256=f"images {seed}"))
    runs = [load_run(tmp_path / f"{seed}") for seed in range(3)]
    assert seed_lines(lines_of(TABLES["A7"], runs)) == []


@pytest.mark.parametrize(
    "other",
    [
        {"epsilon": 4 / 255},
        {"data": "cifar10, split train"},
        {"data": "svhn, split test"},
        {"answered_by": "f- passed on"},
    ],
)
def test_figures_of_another_threat_data_or_answer_do_not_enter_a_row(other, tmp_path):
    save_result(made_up(tmp_path / "run"), measured("fgsm", **other))
    assert lines_of(TABLES["1"], [load_run(tmp_path / "run")]) == []


def test_table_5_tells_the_features_apart(tmp_path):
    run = made_up(tmp_path / "run")
    answers = {"f+ passed on": 0.4, "f- passed on": 0.2, "recalibrated f- passed on": 0.3, "network": 0.5}
    for answered_by, share in answers.items():
        save_result(run, measured("autoattack", share=share, answered_by=answered_by))
    found = {line.row.method: line.figures["autoattack"].value for line in lines_of(TABLES["5"], [load_run(run)])}
    assert found == pytest.approx(
        {"robust_feature": 40, "nonrobust_feature": 20, "recalibrated_feature": 30, "output_feature": 50}
    )


def test_table_5_has_no_column_that_no_run_can_fill(tmp_path):
    assert [measure.name for measure in TABLES["5"].measures] == ["ensemble", "autoattack"]
    assert "the command features makes part b" in text_of("5", made_up(tmp_path / "run", {("clean", "best"): 0.5}))


def test_of_several_measurements_that_on_most_images_counts(tmp_path):
    run = made_up(tmp_path / "run")
    for n, share in ((100, 0.9), (1000, 0.5), (10, 0.1)):
        save_result(run, measured("fgsm", n=n, share=share))
    (line,) = lines_of(TABLES["A7"], [load_run(run)])
    assert (line.figures["fgsm"].n, line.figures["fgsm"].value) == (1000, 50)


def test_section_4_4_is_told_from_the_history_and_the_evaluation(tmp_path):
    run = made_up(tmp_path / "run", {("pgd20", "last"): 0.5})
    for epoch, speed in enumerate((250, 500, 1000), start=1):
        RunFolder(run).append_history({"epoch": epoch, "train_images_per_second": speed})
    (line,) = lines_of(TABLES["4.4"], [load_run(run)])
    assert line.figures["train_epoch_seconds"].value == 100  # 50,000 images at 500 a second
    assert line.figures["pgd20_evaluation_seconds"].value == 50  # 5 s for 1,000 of 10,000


def test_a_run_that_was_not_measured_is_named_with_the_command(tmp_path):
    run = made_up(tmp_path / "run")
    (said,) = said_of(run, "1", "2")
    assert said.startswith(f"{run} fits Table 1, but nothing they ask for has been measured")
    assert said.endswith(f"python -m training.evaluation {run}")


def test_folders_that_are_no_runs_are_named_and_damaged_runs_refused(tmp_path):
    other = tmp_path / "notes"
    other.mkdir()
    arguments = Arguments(out=tmp_path / "out", runs=(other,), table=("7",))
    *_, said = write(arguments)
    assert said == f"{other} is left out: it has no config.json; expected a run folder made by python -m training"
    (other / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"notes.config.json is not the config of a run"):
        list(write(arguments))


def test_an_unknown_table_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(TableError, match=r"table is 'B1'; expected some of 1, 2, 3, .*, A7"):
        list(write(Arguments(out=tmp_path, table=("B1",))))
    assert tables_command.named("a4") is TABLES["A4"]


def test_the_command_exits_with_one_line_for_what_it_refuses(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        tables_command.main(["--table", "9", "--out", str(tmp_path / "out")])
    assert stopped.value.code.startswith("error: table is '9'; expected some of 1, 2")
    tables_command.main(["--table", "7", "--out", str(tmp_path / "out")])
    assert "figures of ours for 4 of 4 rows" in capsys.readouterr().out
