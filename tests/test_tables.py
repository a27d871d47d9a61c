"""Tables of the paper beside made-up runs: what is found, what is missing, what is refused."""

import csv
from pathlib import Path

import pytest
from made_up_runs import made_up, measured
from PIL import Image

from training.checkpoint import CheckpointError, RunFolder
from training.evaluation import tables_command
from training.evaluation.lines import lines_of, seed_lines
from training.evaluation.paper import paper_figures
from training.evaluation.results import save_result
from training.evaluation.runs import load_run
from training.evaluation.statistics import wilson
from training.evaluation.table_files import as_csv, markdown
from training.evaluation.tables import TABLES
from training.evaluation.tables_command import Arguments, TableError, unused, write


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
        "data": "cifar10, split test",
        "trained_on": "cifar10",
        "departures": "width 16, not 64; epochs 5, not 100; 2,500 images held out",
        "definition": "pgd20 as defined",
    }
    assert found.items() >= expected.items()
    assert float(found["low"]) < 50 < float(found["high"])


def test_what_departs_from_the_paper_stands_below_the_table(tmp_path):
    run = made_up(tmp_path / "mine", {("clean", "best"): 0.8}, model={"width": 16}, recipe={"attack": "n_fgsm"})
    RunFolder(run).append_history({"epoch": 1})
    assert (
        "width 16, not 64; stopped after 1 of 100 epochs; attack n_fgsm, not pgd; 2,500 images held out |"
        in text_of("1", run)
    )


def test_three_seeds_are_summed_up_and_two_are_not(tmp_path):
    shares = {0: 0.4, 1: 0.5, 2: 0.6}
    runs = [load_run(made_up(tmp_path / f"{s}", {("fgsm", "best"): share}, seed=s)) for s, share in shares.items()]
    (line,) = seed_lines(lines_of(TABLES["A7"], runs))
    assert (line.seeds, line.spreads["fgsm"]) == ((0, 1, 2), pytest.approx((50, 10)))
    assert seed_lines(lines_of(TABLES["A7"], runs[:2])) == []


def test_a_run_that_is_not_trained_to_the_end_is_not_averaged_with_others(tmp_path):
    runs = [made_up(tmp_path / f"{seed}", {("fgsm", "best"): 0.5}, seed=seed) for seed in range(4)]
    RunFolder(runs[3]).append_history({"epoch": 1})
    (line,) = seed_lines(lines_of(TABLES["A7"], [load_run(run) for run in runs]))
    assert line.seeds == (0, 1, 2)
    assert seed_lines(lines_of(TABLES["A7"], [load_run(run) for run in runs[1:]])) == []


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


def test_table_5_has_no_column_that_no_run_can_fill(tmp_path):
    assert [measure.name for measure in TABLES["5"].measures] == ["ensemble", "autoattack"]
    assert "the command features makes part b" in text_of("5", made_up(tmp_path / "run", {("clean", "best"): 0.5}))


def test_a_run_that_was_not_measured_is_named_with_the_command(tmp_path):
    run = made_up(tmp_path / "run")
    (said,) = unused(load_run(run), [TABLES["1"], TABLES["2"]])
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
