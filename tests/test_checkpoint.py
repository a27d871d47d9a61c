"""Run folders: never overwritten, read back as what they meant, refused with a reason where they are damaged."""

import json

import pytest
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
