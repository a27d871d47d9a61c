"""Which of the measurements of a run a table shows: the paper's protocol, on most images, and with its own data."""

import csv

import pytest
from made_up_runs import made_up, measured

from training.checkpoint import RunFolder
from training.evaluation.lines import lines_of
from training.evaluation.paper import paper_figures
from training.evaluation.protocol import GRADIENT_ATTACKS, Budget
from training.evaluation.results import save_result
from training.evaluation.runs import load_run
from training.evaluation.table_files import as_csv, markdown
from training.evaluation.tables import TABLES


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


def test_of_several_measurements_that_on_most_images_counts(tmp_path):
    run = made_up(tmp_path / "run")
    for n, share in ((100, 0.9), (1000, 0.5), (10, 0.1)):
        save_result(run, measured("fgsm", n=n, share=share))
    (line,) = lines_of(TABLES["A7"], [load_run(run)])
    assert (line.figures["fgsm"].n, line.figures["fgsm"].value) == (1000, 50)


def test_fewer_queries_than_the_papers_are_left_out_and_more_are_not(tmp_path):
    run = made_up(tmp_path / "run")
    for queries, n, share in ((600, 1000, 0.7), (40_000, 100, 0.5), (80_000, 100, 0.4)):
        save_result(run, measured("nattack", n=n, share=share, definition=f"NAttack, {queries} queries"))
    (line,) = lines_of(TABLES["3"], [load_run(run)])
    figure = line.figures["nattack"]
    assert (figure.n, figure.value, figure.definition) == (100, 40, "NAttack, 80000 queries")


def test_of_several_on_as_many_images_the_strongest_counts_whenever_it_was_measured(tmp_path):
    run = made_up(tmp_path / "run")
    for share, starts in ((0.45, "10 random starts"), (0.5, "random start")):
        save_result(run, measured("pgd20", share=share, definition=f"cross-entropy, 20 steps of epsilon/10, {starts}"))
    (line,) = lines_of(TABLES["1"], [load_run(run)])
    assert line.figures["pgd20"].value == 45


def test_the_data_a_run_was_trained_on_come_before_others_of_that_name_and_stand_beside_the_figure(tmp_path):
    run = made_up(tmp_path / "run")
    save_result(run, measured("fgsm", share=0.5))
    save_result(run, measured("fgsm", share=0.3, data="/data/blurred/cifar10, split test", data_sha256="of blurred"))
    save_result(run, measured("cw", share=0.3, data="/data/blurred/cifar10, split test", data_sha256="of blurred"))
    lines = lines_of(TABLES["1"], [load_run(run)])
    assert lines[0].figures["fgsm"].value == 50
    written = csv.DictReader(as_csv(TABLES["1"], lines, paper_figures()).splitlines())
    assert {row["measure"]: (row["data"], row["trained_on"]) for row in written if row["ours"]} == {
        "fgsm": ("cifar10, split test", "cifar10"),
        "cw": ("/data/blurred/cifar10, split test", "cifar10"),
    }
    text = markdown(TABLES["1"], lines, [], paper_figures())
    assert "\n- FGSM: fgsm as defined; cifar10, split test\n" in text
    assert "\n- C&W: cw as defined; /data/blurred/cifar10, split test\n" in text


def test_where_one_measure_was_measured_in_several_ways_each_names_its_runs(tmp_path):
    for seed, name in ((0, "cifar10"), (1, "CIFAR-10 (JPEG)")):
        save_result(made_up(tmp_path / f"{seed}", seed=seed), measured("fgsm", data=f"{name}, split test"))
    lines = lines_of(TABLES["1"], [load_run(tmp_path / f"{seed}") for seed in range(2)])
    text = markdown(TABLES["1"], lines, [], paper_figures())
    assert "- FGSM: fgsm as defined; cifar10, split test (0, seed 0, best)\n" in text
    assert "- FGSM: fgsm as defined; CIFAR-10 (JPEG), split test (1, seed 1, best)\n" in text


def test_section_4_4_is_told_from_the_history_and_the_evaluation(tmp_path):
    run = made_up(tmp_path / "run")
    usual = GRADIENT_ATTACKS["pgd20"]
    for restarts, seconds in ((1, 5.0), (10, 50.0)):
        definition = usual.definition(Budget(restarts=restarts))
        save_result(run, measured("pgd20", "last", definition=definition, seconds=seconds))
    for epoch, speed in enumerate((250, 500, 1000), start=1):
        RunFolder(run).append_history({"epoch": epoch, "train_images_per_second": speed})
    (line,) = lines_of(TABLES["4.4"], [load_run(run)])
    assert line.figures["train_epoch_seconds"].value == 100  # 50,000 images at 500 a second
    assert line.figures["pgd20_evaluation_seconds"].value == 50  # 5 s for 1,000 of 10,000
