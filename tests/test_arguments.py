"""Every choice of a recipe is an option, preset by it; what makes no sense is refused before anything is written."""

import dataclasses
import os
import shlex
import shutil
import subprocess
import sys

import pytest
from conftest import training_arguments

from training import command
from training.arguments import parse
from training.checkpoint import CheckpointError, RunFolder
from training.command import ArgumentError, run
from training.data_sets import DATA_SETS
from training.recipes import RECIPES, Recipe

GIVEN = ["--data", "x", "--out", "y"]


@pytest.mark.parametrize("name", RECIPES)
def test_without_options_the_recipe_is_the_preset(name):
    arguments = parse([*GIVEN, "--recipe", name])
    assert (arguments.recipe_name, arguments.recipe) == (name, RECIPES[name])
    assert parse(["--recipe=" + name, *GIVEN]) == arguments
    assert parse(GIVEN).recipe == RECIPES["fast"]


def test_every_choice_of_a_recipe_is_an_option(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = capsys.readouterr().out
    for field in dataclasses.fields(Recipe):
        assert f"--{field.name.replace('_', '-')} " in shown or f"--{field.name.replace('_', '-')}," in shown


def test_what_a_recipe_has_can_be_changed_and_switched_off():
    changes = ["--awp", "None", "--ema-decay", "None", "--no-nesterov", "--drops", "0.5", "--patience", "3"]
    assert parse([*GIVEN, "--recipe", "strong", *changes]).recipe == dataclasses.replace(
        RECIPES["strong"], awp=None, ema_decay=None, nesterov=False, drops=(0.5,), patience=3
    )


def test_the_recipe_strong_has_its_own_activation_unless_another_is_asked_for():
    strong = [*GIVEN, "--recipe", "strong"]
    assert parse(GIVEN).architecture.activation == "relu"
    assert parse(strong).architecture.activation == "silu"
    assert parse([*strong, "--activation", "relu"]).architecture.activation == "relu"


def test_a_recipe_is_preset_for_the_data_set_and_can_be_changed_from_there():
    svhn = ["--data", "svhn", "--out", "y", "--recipe", "paper"]
    assert parse(svhn).recipe == DATA_SETS["svhn"].adapt(RECIPES["paper"])
    changed = parse([*svhn, "--augmentation", "crop_flip"]).recipe
    assert (changed.augmentation, changed.step_share) == ("crop_flip", 1 / 8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--epochs", "0"], "epochs is 0; expected 1 or more"),
        (["--epsilon", "8"], "epsilon is 8.0; expected above 0 and at most 1"),
        (["--label-smoothing", "1"], "label_smoothing is 1.0; expected 0 or more and less than 1"),
        (["--friendly", "1"], "expected the attack pgd"),
        (["--gradient-clip", "-1"], "gradient_clip is -1.0; expected above 0"),
        (["--momentum", "0"], "momentum is 0 with nesterov; expected above 0. Or switch it off by --no-nesterov"),
        (["--momentum", "1"], "momentum is 1.0; expected 0 or more and less than 1"),
        (["--weight-decay", "-0.1"], "weight_decay is -0.1; expected 0 or more"),
        (["--lambda-sep", "-1"], "lambda_sep is -1.0; expected 0 or more"),
        (["--ema-decay", "1"], "ema_decay is 1.0; expected 0 or more and less than 1"),
        (["--validation-images", "0"], "validation_images is 0; expected 1 or more"),
        (["--warmup", "0"], "warmup is 0.0; expected above 0 and less than 1 (of the run)"),
        (["--warmup", "1"], "warmup is 1.0; expected above 0 and less than 1 (of the run)"),
        (["--warmup", "-1"], "warmup is -1.0; expected above 0 and less than 1 (of the run)"),
        (["--small-scale", "0"], "small_scale is 0.0; expected above 0 and at most 1 (of the full size)"),
        (["--drops", "0.9", "0.75"], "drops is (0.9, 0.75); expected rising shares of the epochs"),
        (["--drops", "0.5", "1"], "drops is (0.5, 1.0); expected rising shares of the epochs"),
        (["--learning-rate", "nan"], "learning_rate is nan; expected above 0"),
        (["--seed", "-1"], "seed is -1; expected 0 or more"),
        (["--seed", f"{2**64}"], f"seed is {2**64}; expected 0 or more and at most {2**64 - 1}"),
        (["--epohcs", "3"], "Unrecognized options: --epohcs"),
        (["--recipe", "slow"], "invalid choice 'slow' for argument '--recipe'"),
        (["--epochs", "None"], "--epochs"),
    ],
)
def test_the_command_line_is_refused_by_name(capsys, given, message):
    with pytest.raises(SystemExit) as stopped:
        parse([*GIVEN, *given])
    assert stopped.value.code != 0
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in shown


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--data", "DATA", "--out", "OUT", "--held-out", "600"], "error: cannot hold out 600 of 600"),
        (["--data", "DATA", "--out", "OUT", "--held-out", "500"], "error: 100 images are left to train on and 500"),
        (["--data", "OUT/none", "--out", "OUT", "--after", "layer9"], "error: after has 'layer9'; expected names"),
        (["--data", "OUT/none", "--out", "OUT", "--after"], "error: after is empty; expected names of submodules"),
        (["--data", "OUT/none", "--out", "OUT", "--start", "OUT/none"], "expected a run folder made by"),
        (["--data", "DATA", "--out", "OUT", "--resume"], "config.json cannot be read (No such file or directory)"),
        (["--data", "DATA", "--out", "OUT", "--model", "alexnet"], "error: model is 'alexnet'; expected one of"),
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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mask": "none"}, "mask is 'none' and lambda_sep 1.0; .* choose lambda_sep 0"),
        ({"recalibration": False}, "recalibration is off and lambda_rec 1.0; .* choose lambda_rec 0"),
        ({"rival": "cas"}, "rival is 'cas' with model 'resnet18' and fsr True; expected resnet18 without FSR"),
        ({"extra_fraction": 0.5}, "extra is None and extra_fraction 0.5; expected both or neither"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(tiny_data, tmp_path, given, message):
    with pytest.raises(ArgumentError, match=message):
        run(training_arguments(tiny_data, tmp_path / "run", **given))
    assert not (tmp_path / "run").exists()


def test_a_run_is_gone_on_with_as_it_was_begun(checkpoint, tiny_data):
    given = ["--data", str(tiny_data), "--out", str(checkpoint), "--resume"]
    bare = parse(given)
    begun = RunFolder(checkpoint).config()
    assert (bare.recipe, bare.architecture.width, bare.image_shape) == (begun.recipe, 4, (16, 16))
    same = ["--recipe", "fast", "--epochs", "6", "--held-out", "32", "--width", "4", "--image-shape", "16", "16"]
    assert parse([*given, *same]) == bare
    parse([*given, "--after", "layer4"])  # where the paper has it, so that the run does too
    assert parse([*given, "--compile", "--deterministic"]).compile


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--epochs", "9", "--learning-rate", "0.01"], "epochs 6, not 9; learning_rate 0.2, not 0.01. A run goes on"),
        (["--recipe", "paper"], "recipe fast, not paper"),
        (["--width", "8"], "width 4, not 8"),
        (["--no-fsr"], "fsr True, not False"),
        (["--seed", "1"], "seed 0, not 1"),
        (["--start", "runs/x"], "start None, not runs/x"),
    ],
)
def test_options_that_a_run_was_not_begun_with_are_refused(checkpoint, given, message):
    with pytest.raises(ArgumentError, match=f"was begun with .*{message}.* another one, with --start {checkpoint}"):
        parse(["--data", "x", "--out", str(checkpoint), "--resume", *given])


def test_an_interrupted_command_says_how_to_go_on(checkpoint, monkeypatch):
    def interrupted(*given):
        raise KeyboardInterrupt

    given = ["--data", "my photos", "--out", str(checkpoint), "--extra", "more.npz", "--compile", "--deterministic"]
    monkeypatch.setattr(command, "run", interrupted)
    monkeypatch.setattr(sys, "argv", ["training", *given])
    for _ in range(2):
        with pytest.raises(SystemExit) as stopped:
            command.main()
        program, _, options = str(stopped.value.code).partition(" -m training ")
        assert program == "\nstopped; go on with: python"
        assert shlex.split(options) == [*given, "--resume"]
        monkeypatch.setattr(sys, "argv", ["training", *shlex.split(options)])


def test_a_start_without_weights_is_refused_before_anything_is_written(checkpoint, tiny_data, tmp_path):
    (tmp_path / "start").mkdir()
    shutil.copy(checkpoint / "config.json", tmp_path / "start")
    with pytest.raises(CheckpointError, match=r"best.safetensors does not hold the weights of this run"):
        run(training_arguments(tiny_data, tmp_path / "run", start=tmp_path / "start"))
    assert not (tmp_path / "run").exists()
