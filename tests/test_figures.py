"""Figures A1 and A2 of the paper from made-up runs: what is found, what is missing, what is never joined."""

import csv

import pytest
from made_up_runs import made_up, measured
from PIL import Image

from training.evaluation import figures_command
from training.evaluation.figure_files import figure_csv, figure_markdown
from training.evaluation.figure_plot import Series, groups_of, series_of
from training.evaluation.figures import FIGURES
from training.evaluation.figures_command import Arguments, write
from training.evaluation.lines import lines_of
from training.evaluation.results import save_result
from training.evaluation.runs import load_run, short_names
from training.evaluation.tables_command import TableError


def drawn(number, *runs):
    loaded = [load_run(run) for run in runs]
    return [(panel, lines_of(panel.table, loaded)) for panel in FIGURES[number].panels(loaded)]


def series(number, *runs):
    """By panel: series -> [(place, percent)]."""
    parts = drawn(number, *runs)
    names = short_names(runs)
    groups = groups_of([line for _, lines in parts for line in lines], names)
    return [
        {
            one: [(place, round(figure.value, 6)) for place, figure in points]
            for one, points in series_of(panel, lines, groups, names).items()
        }
        for panel, lines in parts
    ]


def points(number, *runs):
    """Percent by method and measure."""
    return {
        (line.row.method, name): figure.value
        for _, lines in drawn(number, *runs)
        for line in lines
        for name, figure in line.figures.items()
    }


def test_without_runs_every_point_is_not_run_and_no_figure_is_the_paper_s():
    for number, cells in (("A1", (5 + 4 + 4) * 6), ("A2", 2 * 4 + 2 * 7)):
        parts = drawn(number)
        text = figure_markdown(FIGURES[number], parts)
        rows = sum(len(panel.table.rows) for panel, _ in parts)
        assert text.count("not run") == cells + rows
        assert "The paper draws its values and prints none" in text
        assert "the paper |" not in text
        lines = list(csv.DictReader(figure_csv(parts).splitlines()))
        assert len(lines) == cells
        assert {(line["ours"], line["paper"], line["definition"]) for line in lines} == {("", "", "not run")}


def test_a_run_is_on_the_axis_of_what_it_changes_and_the_papers_values_on_all(tmp_path):
    result = {("pgd20", "best"): 0.5}
    default = made_up(tmp_path / "default", result)
    warm = made_up(tmp_path / "warm", {("pgd20", "best"): 0.4}, model={"tau": 0.5})
    light = made_up(tmp_path / "light", {("pgd20", "best"): 0.3}, recipe={"lambda_sep": 0.5})
    both = made_up(tmp_path / "both", result, model={"tau": 0.5}, recipe={"lambda_sep": 0.5})
    plain = made_up(tmp_path / "plain", result, model={"fsr": False})
    awp = made_up(tmp_path / "awp", result, recipe={"awp": 0.005})
    assert points("A1", default, warm, light, both, plain, awp) == pytest.approx(
        {
            ("AT+FSR tau 0.1", "pgd20"): 50,
            ("AT+FSR tau 0.5", "pgd20"): 40,
            ("AT+FSR lambda_sep 0.5", "pgd20"): 30,
            ("AT+FSR lambda_sep 1", "pgd20"): 50,
            ("AT+FSR lambda_rec 1", "pgd20"): 50,
        }
    )


def test_values_that_runs_have_and_nobody_asked_for_are_on_the_axis(tmp_path):
    run = made_up(tmp_path / "run", {("pgd20", "best"): 0.4}, model={"tau": 0.3})
    save_result(run, measured("pgd20", share=0.2, epsilon=20 / 255))
    tau, *_ = drawn("A1", run)
    assert tau[0].ticks == ("0.01", "0.05", "0.1", "0.3", "0.5", "1")
    plain = made_up(tmp_path / "plain", model={"fsr": False})
    save_result(plain, measured("pgd20", share=0.2, epsilon=20 / 255))
    _, bounds = drawn("A2", plain)
    assert bounds[0].ticks == ("0", "4", "8", "16", "20", "32", "64", "none")


def test_steps_and_bounds_are_told_apart(tmp_path):
    shares = {"clean": 0.8, "pgd10": 0.55, "pgd20": 0.5, "pgd100": 0.49, "pgd1000": 0.48}
    run = made_up(tmp_path / "run", {(name, "last"): share for name, share in shares.items()})
    save_result(run, measured("pgd20", weights="last", share=0.3, epsilon=0.0627451))  # 16/255, as one types it
    save_result(run, measured("pgd100", weights="last", share=0.0, epsilon=1.0))
    steps, bounds = series("A2", run)
    key = Series("AT+FSR: run", "last", "")
    assert steps == {key: [(0, 55), (1, 50), (2, 49), (3, 48)]}
    assert bounds == {key: [(0, 80), (2, 50), (3, 30), (6, 0)]}


def test_runs_are_joined_only_where_nothing_else_differs(tmp_path):
    def run(name, tau, share, **recipe):
        return made_up(tmp_path / name, {("fgsm", "best"): share}, model={"tau": tau}, recipe=recipe)

    first, second = run("first", 0.1, 0.5), run("second", 1.0, 0.4)
    seed = made_up(tmp_path / "seed", {("fgsm", "best"): 0.6}, seed=1)
    short = run("short", 0.5, 0.3, epochs=10)
    tau, separation, _ = series("A1", first, second, seed, short)
    assert tau == {
        Series("FGSM", "best", "first"): [(2, 50), (2, 60), (4, 40)],
        Series("FGSM", "best", "short"): [(3, 30)],
    }
    assert separation == {Series("FGSM", "best", "first"): [(2, 50), (2, 60)]}


def test_best_and_last_weights_are_not_joined(tmp_path):
    run = made_up(tmp_path / "run", {("cw", "best"): 0.5, ("cw", "last"): 0.4})
    assert series("A1", run)[0] == {
        Series("C&W", "best", "run"): [(2, 50)],
        Series("C&W", "last", "run"): [(2, 40)],
    }


def test_every_figure_is_written_with_a_picture(tmp_path, capsys):
    run = made_up(tmp_path / "run", {("clean", "best"): 0.8, ("pgd20", "last"): 0.7}, model={"tau": 1.0})
    other = made_up(tmp_path / "other", recipe={"objective": "alp"})
    out = tmp_path / "out"
    figures_command.main(["--out", str(out), "--runs", str(run), str(other), str(tmp_path / "none")])
    shown = capsys.readouterr().out
    assert f"{out}/figure-A1.md: figures of ours in 1 of 3 panels" in shown
    assert f"{out}/figure-A2.md: figures of ours in 0 of 2 panels" in shown
    assert f"{tmp_path / 'none'} is left out: it has no config.json" in shown
    assert f"{other} matches no row that is asked for: data cifar10, resnet18, objective alp" in shown
    for number in FIGURES:
        assert (out / f"figure-{number}.csv").read_text().startswith("table,data_set,")
        with Image.open(out / f"figure-{number}.png") as picture:
            assert min(picture.size) > 500
    assert "| AT+FSR tau 1 | run, seed 0, best |" in (out / "figure-A1.md").read_text()


def test_an_unknown_figure_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(TableError, match="figure is '1'; expected some of A1, A2; Figure 1 is drawn by: maps"):
        list(write(Arguments(out=tmp_path, figure=("1",))))
    with pytest.raises(SystemExit) as stopped:
        figures_command.main(["--figure", "B2", "--out", str(tmp_path / "out")])
    assert stopped.value.code.startswith("error: figure is 'B2'; expected some of A1, A2")
    assert not (tmp_path / "out").exists()
