"""A run: resumable to the same result, complete on disk, stopped when it overfits, refused when it makes no sense."""

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import colour
from PIL import Image
from safetensors.torch import load_file

from training import train as train_module
from training.batches import Data, shuffled_batches
from training.checkpoint import CheckpointError, RunFolder
from training.command import ArgumentError, Arguments, run
from training.data import ImageData
from training.models import create_model
from training.options import RecipeOptions
from training.processes import ALONE
from training.recipes import RECIPES, Recipe
from training.schedule import learning_rate
from training.source import DataError
from training.state import average
from training.validation import TrainingStoppedError, stop_if_overfitted


def arguments(tiny_data, out, **others):
    return Arguments(data=str(tiny_data), out=out, width=4, held_out=32, **others)


def test_a_run_leaves_all_that_is_needed_to_rebuild_and_judge_it(checkpoint):
    assert {path.name for path in checkpoint.iterdir()} == {
        "config.json",
        "best.safetensors",
        "last.safetensors",
        "resume.safetensors",
        "history.jsonl",
        "curves.png",
        "environment.json",
    }
    history = [json.loads(line) for line in (checkpoint / "history.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "train_accuracy", "validation_clean_accuracy", "validation_pgd10_accuracy"} <= history[0].keys()
    assert history[0].keys() >= MACHINE_MEASURES
    assert all(math.isfinite(value) for record in history for value in record.values())
    model = RunFolder(checkpoint).load_model("last")
    assert model(torch.rand(2, 3, 16, 16)).shape == (2, 3)
    assert not model.training


MACHINE_MEASURES = {"epoch_seconds", "train_images_per_second", "peak_memory_bytes"}


def test_a_run_notes_what_it_ran_on(checkpoint):
    noted = json.loads((checkpoint / "environment.json").read_text())
    assert noted["versions"]["torch"] == torch.__version__
    assert noted["processes"] == 1
    assert noted.keys() >= {"commit", "processor", "cores", "gpu", "threads", "format"}


def assert_same_result(whole, interrupted):
    for name in ("last", "best", "resume"):
        expected, found = (load_file(folder / f"{name}.safetensors") for folder in (whole, interrupted))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)

    def learned(folder):
        return [{k: v for k, v in line.items() if k not in MACHINE_MEASURES} for line in RunFolder(folder).history()]

    assert learned(whole) == learned(interrupted)


@pytest.fixture(scope="module")
def whole(tiny_data, tmp_path_factory):
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(arguments(tiny_data, out, epochs=3))
    return out


def test_a_run_killed_and_resumed_equals_an_uninterrupted_one(tiny_data, tmp_path, whole):
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "training", "--data", tiny_data, "--out", killed, "--width", "4"]
    command += ["--held-out", "32", "--epochs", "3"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (killed / "resume.safetensors").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run(Arguments(data=str(tiny_data), out=killed, resume=True))
    assert_same_result(whole, killed)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("act", ["save_weights", "append_history", "save_resume"])
def test_a_run_stopped_while_saving_loses_at_most_that_epoch(tiny_data, tmp_path, monkeypatch, whole, act, after):
    out = tmp_path / "run"
    real = getattr(RunFolder, act)

    def stops_in_epoch_2(folder, *given):
        if not len(folder.history()) >= 1:
            return real(folder, *given)
        if after:
            real(folder, *given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, act, stops_in_epoch_2)
        with pytest.raises(KeyboardInterrupt):
            run(arguments(tiny_data, out, epochs=3))
    run(Arguments(data=str(tiny_data), out=out, resume=True))
    assert_same_result(whole, out)


def test_pgd_training_is_resumed_to_the_same_result_too(tiny_data, tmp_path, monkeypatch):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    run(arguments(tiny_data, whole, recipe="paper", epochs=2))
    real = RunFolder.save_resume

    def stop(folder, *given):
        real(folder, *given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "save_resume", stop)
        with pytest.raises(KeyboardInterrupt):
            run(arguments(tiny_data, resumed, recipe="paper", epochs=2))
    run(Arguments(data=str(tiny_data), out=resumed, resume=True))
    assert_same_result(whole, resumed)


def test_going_on_with_other_data_is_refused(checkpoint, tiny_data, tmp_path):
    other = shutil.copytree(tiny_data, tmp_path / "other")
    (other / "train" / "red" / "0.png").unlink()
    with pytest.raises(DataError, match=r"the training images are not those of the run: SHA-256 .* Say by --data"):
        run(Arguments(data=str(other), out=checkpoint, resume=True))


@pytest.mark.parametrize("model", ["vgg16", "wide_resnet34_10"])
def test_every_backbone_trains_with_the_fast_recipe(tiny_data, tmp_path, model):
    run(arguments(tiny_data, tmp_path / "run", model=model, epochs=1))


def test_a_run_starts_from_the_weights_of_another(checkpoint, tiny_data, tmp_path):
    run(arguments(tiny_data, tmp_path / "run", start=checkpoint, epochs=1, learning_rate=1e-9))
    expected, found = (RunFolder(folder).load_model("best").state_dict() for folder in (checkpoint, tmp_path / "run"))
    torch.testing.assert_close(found["network.linear.weight"], expected["network.linear.weight"])
    with pytest.raises(ArgumentError, match="expected the same network"):
        run(Arguments(data=str(tiny_data), out=tmp_path / "x", start=checkpoint, width=8, held_out=32))


def test_training_learns_what_can_be_learned(tiny_data, tmp_path):
    run(arguments(tiny_data, tmp_path / "run", epochs=8))
    assert RunFolder(tmp_path / "run").history()[-1]["validation_clean_accuracy"] > 0.8


def test_catastrophic_overfitting_stops_the_run_with_a_reason_for_good(tiny_data, tmp_path, monkeypatch):
    accuracies = {"validation_clean_accuracy": 0.9, "validation_pgd10_accuracy": 0.1, "train_fgsm_accuracy": 0.41}
    monkeypatch.setattr(train_module, "validate", lambda *given: dict(accuracies))
    reason = r"epoch 1: FGSM accuracy .* 31% above PGD-10 .* Use --recipe paper or a smaller --epsilon"
    with pytest.raises(TrainingStoppedError, match=reason):
        run(arguments(tiny_data, tmp_path / "run", epochs=3, natural_share=0.0))
    assert len(RunFolder(tmp_path / "run").history()) == 1
    assert (tmp_path / "run" / "curves.png").exists()
    with pytest.raises(TrainingStoppedError, match=reason):
        run(Arguments(data=str(tiny_data), out=tmp_path / "run", resume=True))


def test_the_gap_of_robust_overfitting_does_not_stop_pgd_training():
    record = {"epoch": 90, "validation_pgd10_accuracy": 0.45, "train_fgsm_accuracy": 0.85}
    stop_if_overfitted(record, RECIPES["paper"])


def test_a_loss_that_is_not_finite_stops_the_run_before_anything_is_kept(tiny_data, tmp_path):
    with pytest.raises(TrainingStoppedError, match=r"epoch 1: the loss is nan; nothing of this epoch was kept"):
        run(arguments(tiny_data, tmp_path / "run", epochs=2, learning_rate=1e30))
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_the_paper_recipe_is_section_4_1():
    recipe = RECIPES["paper"]
    assert (recipe.epochs, recipe.attack, recipe.pgd_steps, recipe.epsilon) == (100, "pgd", 10, 8 / 255)
    assert (recipe.momentum, recipe.weight_decay, recipe.batch_size) == (0.9, 5e-4, 128)
    assert (recipe.lambda_sep, recipe.lambda_rec) == (1, 1)
    rates = [learning_rate(recipe, epoch, 0.5) for epoch in (1, 74, 75, 89, 90, 100)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert not recipe.nesterov
    assert recipe.gradient_clip is recipe.ema_decay is None
    assert recipe.small_share == recipe.natural_share == 0


def test_the_fast_recipe_ends_on_attacked_images_of_full_size_however_short():
    for epochs in (1, 2, 15):
        recipe = dataclasses.replace(RECIPES["fast"], epochs=epochs)
        assert recipe.scale(epochs) == 1
        assert not recipe.is_natural(epochs)
    assert [RECIPES["fast"].scale(epoch) for epoch in (1, 9, 10)] == [0.75, 0.75, 1]
    assert [RECIPES["fast"].is_natural(epoch) for epoch in (1, 3, 4)] == [True, True, False]


def test_averaged_weights_follow_their_closed_form():
    averaged, model = create_model("resnet18", width=4), create_model("resnet18", width=4)
    start = averaged.network.conv1.weight.detach().clone()
    mean = averaged.network.bn1.running_mean.clone()
    model.network.bn1.running_mean.fill_(2.0)
    for _ in range(3):
        average(averaged, model, 0.9)
    expected = 0.729 * start + 0.271 * model.network.conv1.weight
    torch.testing.assert_close(averaged.network.conv1.weight, expected)
    torch.testing.assert_close(averaged.network.bn1.running_mean, 0.729 * mean + 0.271 * 2)


def test_a_run_is_never_overwritten(checkpoint, tiny_data):
    with pytest.raises(CheckpointError, match="is there already; go on with it by --resume, or choose another --out"):
        run(arguments(tiny_data, checkpoint))


def test_a_config_with_an_unknown_setting_is_refused(checkpoint, tmp_path):
    config = json.loads((checkpoint / "config.json").read_text())
    config["recipe"]["natural_epochs"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config.json is not the config of a run.*\n.*natural_epochs"):
        RunFolder(tmp_path).config()


def test_a_damaged_resume_file_is_named(checkpoint, tiny_data, tmp_path):
    damaged = shutil.copytree(checkpoint, tmp_path / "run")
    (damaged / "resume.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"resume.safetensors is damaged: .*; the run cannot go on"):
        run(Arguments(data=str(tiny_data), out=damaged, resume=True))


def test_resuming_what_is_no_run_says_so(tiny_data, tmp_path):
    with pytest.raises(CheckpointError, match=r"config.json cannot be read .* expected a run folder"):
        run(Arguments(data=str(tiny_data), out=tmp_path, resume=True))


@pytest.mark.parametrize("damage", [lambda weights: weights[:-9], lambda weights: b"", lambda weights: b"\x80\x04N."])
def test_damaged_weights_are_named(checkpoint, tmp_path, damage):
    weights = (checkpoint / "best.safetensors").read_bytes()
    (tmp_path / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    (tmp_path / "best.safetensors").write_bytes(damage(weights))
    with pytest.raises(CheckpointError, match=r"best.safetensors does not hold the weights of this run"):
        RunFolder(tmp_path).load_model("best")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--data", "DATA", "--out", "OUT", "--held-out", "600"], "error: cannot hold out 600 of 600"),
        (["--data", "DATA", "--out", "OUT", "--held-out", "500"], "error: 100 images are left to train on; expected"),
        (["--data", "DATA", "--out", "OUT", "--model", "alexnet"], "error: model is 'alexnet'; expected one of"),
        (["--data", "DATA", "--out", "OUT", "--epochs", "0"], "error: epochs is 0; expected 1 or more"),
        (["--data", "DATA", "--out", "OUT", "--epsilon", "8"], "error: epsilon is 8.0; expected above 0"),
        (["--data", "OUT/none", "--out", "OUT"], "error: cannot load data"),
    ],
)
def test_the_command_refuses_bad_input_without_a_trace_or_a_folder(tiny_data, tmp_path, given, message):
    out = tmp_path / "out"
    given = [text.replace("DATA", str(tiny_data)).replace("OUT", str(out)) for text in given]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "training", *given], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_every_choice_of_a_recipe_is_an_option():
    options, choices = fields(RecipeOptions), fields(Recipe)
    assert [field.name for field in options] == [field.name for field in choices]
    assert Arguments(data="x", out="y", beta=4.0, patience=3).change(RECIPES["paper"]) == dataclasses.replace(
        RECIPES["paper"], beta=4.0, patience=3
    )


def test_a_config_written_before_the_newer_choices_reads_as_what_it_meant(checkpoint, tmp_path):
    config = json.loads((checkpoint / "config.json").read_text())
    for name in ("after", "mask", "recalibration", "rival", "activation"):
        del config["model"][name]
    for name in ("objective", "awp", "augmentation", "step_share", "extra_fraction", "separation_target"):
        del config["recipe"][name]
    del config["extra"], config["extra_sha256"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert RunFolder(tmp_path).config() == RunFolder(checkpoint).config()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mask": "none"}, "mask is 'none' and lambda_sep 1.0; .* choose lambda_sep 0"),
        ({"recalibration": False}, "recalibration is off and lambda_rec 1.0; .* choose lambda_rec 0"),
        ({"rival": "cas"}, "rival is 'cas' with model 'resnet18' and fsr True; expected resnet18 without FSR"),
        ({"extra_fraction": 0.5}, "extra is None and extra_fraction 0.5; expected both or neither"),
        ({"friendly": 1}, "expected the attack pgd"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0; expected 0 or more and less than 1"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(tiny_data, tmp_path, given, message):
    with pytest.raises(ArgumentError, match=message):
        run(arguments(tiny_data, tmp_path / "run", **given))
    assert not (tmp_path / "run").exists()


def test_a_run_can_be_watched_in_tensorboard(tiny_data, tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, folder):
            written.append(folder)

        def __enter__(self):
            return self

        def __exit__(self, *given):
            written.append("closed")

        def add_scalar(self, name, value, step):
            written.append((name, step))

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))
    run(arguments(tiny_data, tmp_path / "run", epochs=1, tensorboard=True))
    assert written[0] == tmp_path / "run" / "tensorboard"
    assert ("loss", 1) in written
    assert written[-1] == "closed"


def test_extra_images_fill_their_fraction_of_every_batch():
    own = ImageData(torch.zeros(64, 3, 2, 2, dtype=torch.uint8), torch.zeros(64, dtype=torch.int64), ("a", "b"))
    extra = ImageData(torch.ones(9, 3, 2, 2, dtype=torch.uint8), torch.ones(9, dtype=torch.int64), ("a", "b"))
    recipe = dataclasses.replace(RECIPES["paper"], batch_size=10, extra_fraction=0.7)
    order = torch.Generator().manual_seed(0)
    batches = list(shuffled_batches(Data(own, own, extra), recipe, order, ALONE))
    assert [(len(labels), int(labels.sum())) for _, labels in batches] == [(10, 7)] * 6
    assert all(torch.equal(pixels[:, 0, 0, 0].long(), labels) for pixels, labels in batches)


def test_early_stopping_ends_the_run_for_good(tiny_data, tmp_path, monkeypatch):
    accuracies = {"validation_clean_accuracy": 0.9, "validation_pgd10_accuracy": 0.4, "train_fgsm_accuracy": 0.4}
    monkeypatch.setattr(train_module, "validate", lambda *given: dict(accuracies))
    run(arguments(tiny_data, tmp_path / "run", epochs=9, patience=2))
    assert len(RunFolder(tmp_path / "run").history()) == 3
    run(Arguments(data=str(tiny_data), out=tmp_path / "run", resume=True))
    assert len(RunFolder(tmp_path / "run").history()) == 3


OBJECTIVES_SLOW = ["natural", "at", "trades", "mart", "alp", "s2o", "gaussian"]


@pytest.mark.slow
@pytest.mark.parametrize("module", [{}, {"fsr": False}, *({"fsr": False, "rival": r} for r in ("fd", "cas", "cifs"))])
@pytest.mark.parametrize("objective", OBJECTIVES_SLOW)
def test_every_objective_learns_with_every_module(tmp_path, tmp_path_factory, objective, module):
    """One epoch on 2,000 images, in two halves: the loss falls."""
    root = tmp_path_factory.mktemp("colours")
    random = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (root / "train" / name).mkdir(parents=True)
        for index in range(700):
            Image.fromarray(colour(random, channel)).save(root / "train" / name / f"{index}.png")
    options = {"objective": objective, "learning_rate": 0.05, "batch_size": 20, "recipe": "paper", "pgd_steps": 2}
    run(Arguments(data=str(root), out=tmp_path / "run", width=8, held_out=100, epochs=2, **options, **module))
    first, last = RunFolder(tmp_path / "run").history()
    assert last["loss"] < first["loss"]
    assert last["train_accuracy"] > 0.5


@pytest.mark.slow
def test_a_compiled_run_learns_the_same(tiny_data, tmp_path):
    for name, compiled in (("compiled", True), ("eager", False)):
        run(arguments(tiny_data, tmp_path / name, epochs=1, natural_share=0.0, compile=compiled))
    compiled, eager = (RunFolder(tmp_path / name).history()[0]["loss"] for name in ("compiled", "eager"))
    assert compiled == pytest.approx(eager, rel=0.05)


def test_a_deterministic_run_gives_the_same_losses_twice(tiny_data, tmp_path):
    try:
        for name in ("first", "second"):
            run(arguments(tiny_data, tmp_path / name, epochs=1, deterministic=True))
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same_result(tmp_path / "first", tmp_path / "second")
