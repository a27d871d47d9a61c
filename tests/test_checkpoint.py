"""Run folders: never overwritten, read back as what they meant, refused with a reason where they are damaged."""

import json

import pytest
import torch
from conftest import training_arguments

from training.checkpoint import CheckpointError, RunFolder
from training.command import run


def test_a_run_is_never_overwritten(checkpoint, tiny_data):
    with pytest.raises(CheckpointError, match="holds a run; go on with it by --resume, or choose another --out"):
        run(training_arguments(tiny_data, checkpoint))


def test_a_config_with_an_unknown_setting_is_refused(checkpoint, tmp_path):
    config = json.loads((checkpoint / "config.json").read_text())
    config["recipe"]["natural_epochs"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config.json is not the config of a run.*\n.*natural_epochs"):
        RunFolder(tmp_path).config()


def test_a_config_written_before_the_newer_choices_reads_as_what_it_meant(checkpoint, tmp_path):
    config = json.loads((checkpoint / "config.json").read_text())
    for name in ("after", "mask", "recalibration", "rival", "activation"):
        del config["model"][name]
    for name in ("objective", "awp", "augmentation", "step_share", "extra_fraction", "separation_target"):
        del config["recipe"][name]
    del config["extra"], config["extra_sha256"], config["jpeg_scale"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert RunFolder(tmp_path).config() == RunFolder(checkpoint).config()


@pytest.mark.parametrize("damage", [lambda weights: weights[:-9], lambda weights: b"", lambda weights: b"\x80\x04N."])
def test_damaged_weights_are_named(checkpoint, tmp_path, damage):
    weights = (checkpoint / "best.safetensors").read_bytes()
    (tmp_path / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    (tmp_path / "best.safetensors").write_bytes(damage(weights))
    with pytest.raises(CheckpointError, match=r"best.safetensors does not hold the weights of this run"):
        RunFolder(tmp_path).load_model("best")


def test_weights_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "last.part").mkdir()
    with pytest.raises(CheckpointError, match=r"last.safetensors cannot be written: .* and go on by --resume"):
        RunFolder(tmp_path).save_weights("last", {"weight": torch.zeros(3)})


def test_what_each_part_of_a_run_trained_on_stays_noted(tmp_path):
    folder, noted = RunFolder(tmp_path), tmp_path / "environment.json"
    noted.write_text('{"gpu": "A100"}')  # as it was written before parts were told apart
    folder.save_environment({"gpu": "H100"}, epoch=3)
    folder.save_environment({"gpu": None}, epoch=4)
    folder.save_environment({"gpu": "H200"}, epoch=4)
    later = [{"from_epoch": 3, "gpu": "H100"}, {"from_epoch": 4, "gpu": "H200"}]
    assert json.loads(noted.read_text()) == {"gpu": "A100", "later": later}
    folder.save_environment({"gpu": "H200"}, epoch=1)
    assert json.loads(noted.read_text()) == {"from_epoch": 1, "gpu": "H200", "later": []}
    noted.write_text("[]")
    with pytest.raises(CheckpointError, match=r"environment.json is damaged: .* Delete it"):
        folder.save_environment({"gpu": None}, epoch=2)
