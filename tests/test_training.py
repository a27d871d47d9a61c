"""A run: complete on disk, stopped when it overfits, watched while it runs."""

import dataclasses
import json
import math
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import CLASSES, SIDE, training_arguments
from torch import nn

from training import train as train_module
from training.arguments import Arguments
from training.checkpoint import CheckpointError, RunFolder
from training.command import ArgumentError, run
from training.data import ImageData, to_floats
from training.device import pick_device
from training.models import FSRNet, create_model
from training.processes import ALONE
from training.recipes import RECIPES
from training.state import average
from training.validation import TrainingStoppedError, stop_if_overfitted, validate


def test_a_run_leaves_all_that_is_needed_to_rebuild_and_judge_it(checkpoint):
    assert {path.name for path in checkpoint.iterdir()} == {
        ".lock",
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
    assert history[0].keys() >= {"epoch_seconds", "train_images_per_second", "peak_memory_bytes"}
    assert all(math.isfinite(value) for record in history for value in record.values())
    model = RunFolder(checkpoint).load_model("last")
    assert model(torch.rand(2, 3, 16, 16)).shape == (2, 3)
    assert not model.training


def test_a_run_notes_what_it_ran_on(checkpoint):
    noted = json.loads((checkpoint / "environment.json").read_text())
    assert noted["versions"]["torch"] == torch.__version__
    assert noted["processes"] == 1
    assert noted.keys() >= {"commit", "processor", "cores", "gpu", "threads", "format"}
    assert (noted["from_epoch"], noted["compile"], noted["deterministic"]) == (1, False, False)


def test_a_run_that_has_ended_keeps_what_it_was_trained_on(checkpoint, tiny_data, tmp_path):
    out = shutil.copytree(checkpoint, tmp_path / "run")
    (out / "environment.json").write_text('{"gpu": "A100"}')
    run(Arguments(data=str(tiny_data), out=out, resume=True))
    assert (out / "environment.json").read_text() == '{"gpu": "A100"}'


def test_no_two_orders_or_processes_draw_the_same_random_numbers():
    keys = [(epoch, *process) for epoch in (0, 1, 2) for process in ((), (0,), (1,))]
    seeds = {train_module._seed(seed, *key) for seed in (5, 2**32 + 5, 2**64 - 1) for key in keys}
    assert len(seeds) == 3 * len(keys)


@pytest.mark.parametrize("model", ["vgg16", "wide_resnet34_10"])
def test_every_backbone_trains_with_the_fast_recipe(tiny_data, tmp_path, model):
    run(training_arguments(tiny_data, tmp_path / "run", model=model, epochs=1))


def test_a_run_starts_from_the_weights_of_another(checkpoint, tiny_data, tmp_path):
    paper = {"after": ("layer4",)}  # what the other one has by default
    run(training_arguments(tiny_data, tmp_path / "run", start=checkpoint, epochs=1, learning_rate=1e-9, **paper))
    expected, found = (RunFolder(folder).load_model("best").state_dict() for folder in (checkpoint, tmp_path / "run"))
    torch.testing.assert_close(found["network.linear.weight"], expected["network.linear.weight"])
    with pytest.raises(ArgumentError, match="expected the same network"):
        run(training_arguments(tiny_data, tmp_path / "x", start=checkpoint, width=8))


def test_a_network_is_not_held_to_images_that_it_was_trained_on(checkpoint, tiny_data, tmp_path):
    for other in ({"seed": 7}, {"held_out": 20}):
        with pytest.raises(ArgumentError, match=r"was trained on others; expected --seed 0 --held-out \d+"):
            run(training_arguments(tiny_data, tmp_path / "x", start=checkpoint, **other))


def test_a_run_without_its_history_is_not_gone_on_with(tiny_data, tmp_path):
    run(training_arguments(tiny_data, tmp_path / "run", epochs=1))
    (tmp_path / "run" / "history.jsonl").unlink()
    with pytest.raises(CheckpointError, match=r"the state after epoch 1, but a history of 0; expected history.jsonl"):
        run(Arguments(data=str(tiny_data), out=tmp_path / "run", resume=True))


def test_training_learns_what_can_be_learned(tiny_data, tmp_path):
    run(training_arguments(tiny_data, tmp_path / "run", epochs=8))
    assert RunFolder(tmp_path / "run").history()[-1]["validation_clean_accuracy"] > 0.8


def test_catastrophic_overfitting_stops_the_run_with_a_reason_for_good(tiny_data, tmp_path, monkeypatch):
    accuracies = {
        "validation_clean_accuracy": 0.9,
        "validation_pgd10_accuracy": 0.1,
        "train_fgsm_accuracy": 0.41,
        "train_pgd10_accuracy": 0.1,
    }
    monkeypatch.setattr(train_module, "validate", lambda *given: dict(accuracies))
    reason = r"epoch 1: on training images FGSM accuracy is 31% above PGD-10 .* with --recipe paper or a smaller --ep"
    with pytest.raises(TrainingStoppedError, match=reason):
        run(training_arguments(tiny_data, tmp_path / "run", epochs=3, natural_share=0.0))
    assert len(RunFolder(tmp_path / "run").history()) == 1
    assert (tmp_path / "run" / "curves.png").exists()
    with pytest.raises(TrainingStoppedError, match=reason):
        run(Arguments(data=str(tiny_data), out=tmp_path / "run", resume=True))


class NearestImage(nn.Module):
    """Knows its images by heart: each logit is minus the squared distance to the nearest one of the class."""

    def __init__(self, data):
        super().__init__()
        self.data = data

    def forward(self, images):
        distances = torch.cdist(images.flatten(1), to_floats(self.data.pixels).flatten(1)).square()
        return torch.stack([-distances[:, self.data.labels == label].amin(dim=1) for label in range(3)], dim=1)


def test_learning_the_training_images_by_heart_is_no_catastrophic_overfitting():
    torch.manual_seed(0)
    pixels, labels = torch.randint(256, (120, 3, SIDE, SIDE), dtype=torch.uint8), torch.randint(3, (120,))
    training, validation = (ImageData(pixels[part], labels[part], CLASSES) for part in (slice(60), slice(60, None)))
    model, device = FSRNet(NearestImage(training)).eval(), pick_device()
    found = validate(model, training, validation, RECIPES["fast"], 1, device, ALONE)
    assert (found["train_fgsm_accuracy"], found["train_pgd10_accuracy"]) == (1, 1)
    assert found["validation_pgd10_accuracy"] < 0.5
    stop_if_overfitted({"epoch": 15, **found}, RECIPES["fast"])


def test_training_for_smoothing_is_validated_on_noise_of_its_strength():
    torch.manual_seed(0)
    data = ImageData(torch.randint(256, (60, 3, SIDE, SIDE), dtype=torch.uint8), torch.randint(3, (60,)), CLASSES)
    model = FSRNet(NearestImage(data)).eval()
    found = {}
    for sigma in (0.01, 100.0):
        recipe = dataclasses.replace(RECIPES["paper"], objective="gaussian", sigma=sigma)
        found[sigma] = validate(model, data, data, recipe, 1, pick_device(), ALONE)["validation_noisy_accuracy"]
    assert found[0.01] == 1
    assert found[100.0] < 0.6
    assert "validation_noisy_accuracy" not in validate(model, data, data, RECIPES["paper"], 1, pick_device(), ALONE)


def test_the_gap_of_robust_overfitting_does_not_stop_pgd_training():
    record = {"epoch": 90, "train_pgd10_accuracy": 0.45, "train_fgsm_accuracy": 0.85}
    stop_if_overfitted(record, RECIPES["paper"])


def test_a_loss_that_is_not_finite_stops_the_run_before_anything_is_kept(tiny_data, tmp_path):
    reason = r"epoch 1: the loss is nan; nothing of this epoch was kept. .* --learning-rate below 1e\+30, or look for"
    with pytest.raises(TrainingStoppedError, match=reason):
        run(training_arguments(tiny_data, tmp_path / "run", epochs=2, learning_rate=1e30))
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_a_loss_that_is_not_finite_later_on_names_the_best_weights_to_start_from(tiny_data, tmp_path, monkeypatch):
    real = train_module.train_epoch

    def breaks_in_epoch_2(state, data, recipe, epoch, *given):
        return real(state, data, recipe, epoch, *given) | ({"loss": math.inf} if epoch == 2 else {})

    monkeypatch.setattr(train_module, "train_epoch", breaks_in_epoch_2)
    out = tmp_path / "run"
    with pytest.raises(TrainingStoppedError, match=rf"epoch 2: the loss is inf; .* and --start {out} for its best"):
        run(training_arguments(tiny_data, out, epochs=3, small_share=0.0))
    assert (out / "best.safetensors").exists()


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
    run(training_arguments(tiny_data, tmp_path / "run", epochs=1, tensorboard=True))
    assert written[0] == tmp_path / "run" / "tensorboard"
    assert ("loss", 1) in written
    assert written[-1] == "closed"


def test_early_stopping_ends_the_run_for_good(tiny_data, tmp_path, monkeypatch):
    accuracies = {"validation_clean_accuracy": 0.9, "validation_pgd10_accuracy": 0.4, "train_fgsm_accuracy": 0.4}
    monkeypatch.setattr(train_module, "validate", lambda *given: dict(accuracies))
    run(training_arguments(tiny_data, tmp_path / "run", epochs=9, patience=2, natural_share=0.0, small_share=0.0))
    assert len(RunFolder(tmp_path / "run").history()) == 3
    run(Arguments(data=str(tiny_data), out=tmp_path / "run", resume=True))
    assert len(RunFolder(tmp_path / "run").history()) == 3
