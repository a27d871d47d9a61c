"""Run folders as reports see them: data set, departures from the paper, results that still hold."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from made_up_runs import made_up, measured

from training.checkpoint import CheckpointError
from training.evaluation.results import save_result
from training.evaluation.runs import data_set_of, load_run, short_names


def test_a_run_as_in_the_paper_departs_by_what_it_holds_out(tmp_path):
    rates = {"augmentation": "none", "step_share": 1 / 8, "learning_rate": 0.01}
    held_out = "2,500 images held out"
    assert load_run(made_up(tmp_path / "cifar10")).departures() == (held_out,)
    assert load_run(made_up(tmp_path / "svhn", data="svhn", recipe=rates)).departures() == (held_out,)
    assert len(load_run(made_up(tmp_path / "other", data="svhn")).departures()) == 4
    assert load_run(made_up(tmp_path / "few", recipe={"held_out": 500})).departures() == ("500 images held out",)


def test_what_is_off_is_no_departure(tmp_path):
    idle = {"small_scale": 0.75, "warmup": 0.1, "awp_after": 0.1, "augmentation": "none", "padding": 2}
    run = load_run(made_up(tmp_path / "cifar10", recipe=idle | {"validation_images": 500}))
    assert run.departures() == ("augmentation none, not crop_flip", "2,500 images held out")


@pytest.mark.parametrize(("objective", "beta", "said"), [("trades", None, 6), ("mart", None, 5), ("trades", 0.0, 0)])
def test_the_weight_that_the_paper_does_not_give_is_said(tmp_path, objective, beta, said):
    run = load_run(made_up(tmp_path / "run", recipe={"objective": objective, "beta": beta}))
    assert run.departures() == (f"beta {said} (the paper gives none)", "2,500 images held out")


@pytest.mark.parametrize(
    ("formats", "said"),
    [(["bfloat16"], ["trained in bfloat16"]), (["float32"], []), (["float32", "bfloat16"], ["trained in bfloat16"])],
)
def test_the_format_that_any_part_was_trained_in_is_said_unless_it_is_float32(tmp_path, formats, said):
    run = made_up(tmp_path / "run")
    first, *later = ({"format": format, "processor": f"a {format} one"} for format in formats)
    (run / "environment.json").write_text(json.dumps(first | {"later": later}))
    assert list(load_run(run).departures()) == ["2,500 images held out", *said]
    assert load_run(run).hardware == " and ".join(f"a {format} one" for format in formats)


def test_figures_of_weights_since_replaced_are_left_out(tmp_path):
    run = made_up(tmp_path / "run", {("fgsm", "best"): 0.5, ("fgsm", "last"): 0.4})
    (run / "best.safetensors").write_bytes(b"others")
    assert [result.weights for result in load_run(run).results] == ["last"]


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_note_of_the_hardware_is_named(tmp_path, text):
    run = made_up(tmp_path / "run")
    (run / "environment.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"environment.json is damaged: .*Delete it"):
        load_run(run)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("cifar10", "cifar10"),
        ("data/cifar100", "cifar100"),
        ("CIFAR-10 (JPEG)", "cifar10"),
        ("uoft-cs/cifar10", "cifar10"),
        ("zh-plus/tiny-imagenet", "tiny-imagenet"),
        ("data/photos", None),
        ("data/CIFAR-10-C", None),
        ("cifar10.1", None),
    ],
)
def test_data_sets_are_known_by_many_names(name, known):
    assert data_set_of(name) == known


def test_runs_are_named_by_as_few_parts_of_their_paths_as_tell_them_apart():
    paths = [Path("runs/seed0/at"), Path("runs/seed1/at"), Path("runs/seed1/at"), Path("other/seed1/fsr")]
    assert short_names(paths) == dict(zip(paths, ["seed0/at", "seed1/at", "seed1/at", "seed1/fsr"], strict=True))
    assert short_names([Path("a/x"), Path("b/y")]) == {Path("a/x"): "x", Path("b/y"): "y"}
    assert short_names([Path("at"), Path("old/at")]) == {Path("at"): "at", Path("old/at"): "old/at"}
    assert short_names([]) == {}


def test_best_weights_that_are_the_last_have_results_as_either(tmp_path):
    run = made_up(tmp_path / "run")
    for weights in ("best", "last", "best"):
        save_result(run, measured("pgd20", weights, weights_sha256="of both"))
    assert [result.weights for result in load_run(run).results] == ["last", "best"]


def test_results_measured_at_the_same_time_are_all_kept(tmp_path):
    run = made_up(tmp_path / "run")
    results = [measured("pgd20", seed=seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(partial(save_result, run), results))
    assert sorted(result.seed for result in load_run(run).results) == list(range(40))
