"""Two runs on the same images: what is paired, what is told apart, what is refused."""

import numpy as np
import pytest
from made_up_runs import made_up, measured
from matplotlib.figure import Figure
from PIL import Image

from training.evaluation import compare_command
from training.evaluation.compare import ComparisonError, titles
from training.evaluation.compare_command import load_pair, report
from training.evaluation.results import open_flags, save_result
from training.evaluation.statistics import wilson
from training.source import DataError


def keep(run, text, attack="pgd20", **others):
    """A result of the run whose images are right where `text` has a 1, with its flags."""
    flags = np.array([letter == "1" for letter in text])
    interval = wilson(int(flags.sum()), len(flags))._asdict()
    result = measured(attack, n=len(flags), **interval | others)
    save_result(run, result)
    open_flags(run, result).write(slice(0, len(flags)), flags, 1.0)


@pytest.fixture
def runs(tmp_path):
    return made_up(tmp_path / "plain", model={"fsr": False}), made_up(tmp_path / "fsr", seed=1)


def compared(paths):
    return [load_pair(*paths)]


def cells(lines, name):
    (line,) = [line for line in lines if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_a_comparison_holds_both_accuracies_the_discordant_images_and_p(runs):
    keep(runs[0], "11100000")
    keep(runs[1], "01111111")
    lines = list(report(compared(runs)))
    name, n, first, second, difference, only_first, only_second, p = cells(lines, "pgd20")
    low, high = wilson(3, 8)[1:]
    assert first == f"37.50 ({100 * low:.1f} - {100 * high:.1f})"
    assert second.startswith("87.50 (")
    assert (name, n, only_first, only_second) == ("pgd20", "8", "1", "5")
    assert difference.startswith("+50.00 (")
    assert float(p) == pytest.approx(2 * (1 + 6) / 2**6, abs=0.01)  # at most 1 of 6 fair coins, either way


def test_best_and_last_weights_are_apart(runs):
    for run in runs:
        keep(run, "1100", weights="best")
        keep(run, "1000", weights="last")
    lines = list(report(compared(runs)))
    heads = [line.split("|")[1].strip() for line in lines if "only first right" in line]
    assert heads == ["best weights", "last weights"]


def test_what_one_run_alone_has_is_named(runs):
    keep(runs[0], "11")
    keep(runs[1], "10")
    keep(runs[1], "10", attack="cw")
    lines = list(report(compared(runs)))
    assert lines[-1] == f"- {runs[1]}: cw (best, cw as defined) on 2 images, seed 0"


def test_runs_measured_on_different_images_are_refused(runs):
    keep(runs[0], "1100")
    keep(runs[1], "110", data_sha256="of others")
    with pytest.raises(
        ComparisonError, match=r"no attack measured alike: pgd20 \(best, .*\) is on 4 images .* on 3 others"
    ):
        list(report(compared(runs)))


@pytest.mark.parametrize("other", [{"definition": "more steps"}, {"epsilon": 0.1}, {"answered_by": "f- passed on"}])
def test_different_attacks_and_answers_are_not_paired(runs, other):
    keep(runs[0], "1100")
    keep(runs[1], "1100", **other)
    with pytest.raises(ComparisonError, match="no attack measured alike"):
        list(report(compared(runs)))


def test_what_differs_between_measurements_of_one_attack_is_in_its_name(runs):
    for run in runs:
        keep(run, "1100")
        keep(run, "1000", epsilon=16 / 255)
        keep(run, "1110", attack="cw", definition="one start")
        keep(run, "1000", attack="cw", definition="ten starts")
    lines = list(report(compared(runs)))
    names = [line.split("|")[1].strip() for line in lines if line.startswith(("| pgd20", "| cw"))]
    assert names == ["pgd20", "pgd20@16/255", "cw (one start, seed 0)", "cw (ten starts, seed 0)"]


def test_the_same_attack_on_other_data_stays_apart_and_says_so(runs, tmp_path):
    for run in runs:
        keep(run, "1100")
        keep(run, "0011", data="cifar10, split train", data_sha256="of the training images")
    lines = list(report(compared(runs)))
    names = [line.split("|")[1].strip() for line in lines if line.startswith("| pgd20")]
    assert names == ["pgd20, cifar10, split test", "pgd20, cifar10, split train"]
    assert len(titles(compared(runs)[0].compared)) == 2


def test_results_without_flags_are_refused_with_the_fix(runs):
    for run in runs:
        save_result(run, measured("pgd20"))
    with pytest.raises(DataError, match="which images kept their label was not kept. Measure anew"):
        list(report(compared(runs)))


def test_the_command_exits_with_one_line_for_what_it_refuses(runs, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        compare_command.main([str(runs[0]), str(tmp_path / "none")])
    assert stopped.value.code.startswith(f"error: {tmp_path / 'none' / 'config.json'} cannot be read")
    keep(runs[0], "1100")
    keep(runs[1], "1100")
    compare_command.main([str(run) for run in runs])
    assert "| pgd20 | 4 |" in capsys.readouterr().out


def test_the_report_says_what_its_intervals_and_p_are_over(runs):
    for run in runs:
        keep(run, "1100")
    assert "they say that two networks differ, not that two methods do" in list(report(compared(runs)))[1]


def test_from_three_pairs_on_the_mean_difference_has_an_interval_over_pairs(tmp_path):
    pairs = []
    for seed, (plain, fsr) in enumerate((("1100000000", "1110000000"), ("1100000000", "1111000000"), ("10" * 5,) * 2)):
        paths = [made_up(tmp_path / f"{name}-{seed}", seed=seed) for name in ("plain", "fsr")]
        for path, text in zip(paths, (plain, fsr), strict=True):
            keep(path, text)
        pairs.append(load_pair(*paths))
    assert not [line for line in report(pairs[:2]) if "over pairs" in line]
    lines = list(report(pairs))
    assert lines[-3] == "| best weights, over pairs | n | pairs | mean of second - first, 95 % (t) | sd |"
    # differences of 10, 20 and 0 points: mean 10, deviation 10, t(2) = 4.303
    assert lines[-1] == "| pgd20 | 10 | 3 | +10.00 (-14.8 to +34.8) | 10.00 |"


@pytest.mark.parametrize("count", [1, 3])
def test_runs_that_are_no_pairs_are_refused(runs, count):
    with pytest.raises(SystemExit) as stopped:
        compare_command.main([str(runs[0])] * count)
    assert stopped.value.code.startswith(f"error: {count} run folders were given; expected pairs: FIRST SECOND [")


def test_several_pairs_are_written_with_a_picture_of_their_differences(runs, tmp_path, capsys):
    for weights in ("best", "last"):
        keep(runs[0], "1100", weights=weights)
        keep(runs[1], "1110", weights=weights)
    out = tmp_path / "report"
    compare_command.main([*map(str, runs), *map(str, reversed(runs)), "--out", str(out)])
    assert (out / "compare.md").read_text() == capsys.readouterr().out
    with Image.open(out / "compare.png") as picture:
        picture.verify()
    written = (out / "compare.md").read_text()
    assert written.count("| pgd20 | 4 |") == 4
    assert "+25.00" in written
    assert "-25.00" in written


def test_pairs_of_folders_with_the_same_names_are_all_drawn_and_told_apart(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: (drawn.update(figure=self), path.touch()))
    paths = [tmp_path / f"seed{seed}" / name for seed in range(3) for name in ("at", "at-fsr")]
    for number, path in enumerate(paths):
        made_up(path, seed=number // 2, model={"fsr": path.name == "at-fsr"})
        for weights in ("last",) if number > 3 else ("best", "last"):
            keep(path, "1100", weights=weights)
    compare_command.main([*map(str, paths), "--out", str(tmp_path / "out")])
    (legend,) = drawn["figure"].legends
    assert [text.get_text() for text in legend.get_texts()] == [f"seed{n}/at and seed{n}/at-fsr" for n in range(3)]
