"""What every command of python -m training.evaluation refuses: in one line that names value, rule and choices."""

import subprocess
import sys

import pytest
from made_up_runs import made_up

from training.checkpoint import RunFolder
from training.evaluation import (
    certify_command,
    command,
    compare_command,
    corruptions_command,
    cost_command,
    features_command,
    figures_command,
    maps_command,
    obfuscation_command,
    tables_command,
)

OUT = ["--out", "OUT"]
FEW = ["--images", "6"]
OF_A_RUN = {
    "attacks": (command, []),
    "corruptions": (corruptions_command, []),
    "certify": (certify_command, []),
    "obfuscation": (obfuscation_command, []),
    "features": (features_command, OUT),
    "maps": (maps_command, OUT),
}
"""Commands that measure a run, and what else they need."""


def refused(module, args, tmp_path, capsys):
    """The message, in one line."""
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stopped:
        module.main([str(out) if arg == "OUT" else str(arg) for arg in args])
    assert stopped.value.code not in (0, None)
    assert not out.exists()
    if isinstance(stopped.value.code, str):
        assert "\n" not in stopped.value.code
        return stopped.value.code
    return " ".join(capsys.readouterr().err.replace("│", " ").split())


of_a_run = pytest.mark.parametrize(("module", "others"), OF_A_RUN.values(), ids=OF_A_RUN)


@of_a_run
def test_no_images_are_too_few(module, others, checkpoint, tmp_path, capsys):
    for count in (0, -1, 25):
        said = refused(module, [checkpoint, *others, "--images", count], tmp_path, capsys)
        assert said.startswith(f"error: images is {count}; expected 1 to ")


@of_a_run
def test_a_missing_run_is_named_with_what_makes_one(module, others, tmp_path, capsys):
    said = refused(module, [tmp_path / "none", *others], tmp_path, capsys)
    assert said == (
        f"error: {tmp_path}/none/config.json cannot be read (No such file or directory); "
        "expected a run folder made by python -m training"
    )


@of_a_run
def test_data_of_other_classes_is_named(module, others, checkpoint, tiny_data, tmp_path, capsys):
    for name in ("red", "blue"):
        folder = tmp_path / "data" / "test" / name
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes((tiny_data / "test" / name / "0.png").read_bytes())
    said = refused(module, [checkpoint, *others, "--data", tmp_path / "data"], tmp_path, capsys)
    assert said == (
        f"error: the data has the 2 classes blue, red; {checkpoint} was trained on the 3 classes blue, green, red. "
        "Say by --data where images of those classes lie"
    )


@pytest.mark.parametrize(
    ("module", "option", "some"),
    [
        (command, "--attacks", ("pgd20", "autoattack")),
        (features_command, "--attack", ("pgd20", "cw")),
        (maps_command, "--attack", ("pgd20", "cw")),
        (corruptions_command, "--kinds", ("gaussian_noise", "rotation_grid")),
        (cost_command, "--model", ("resnet18", "vgg16")),
        (command, "--weights", ("best", "last")),
    ],
)
def test_an_unknown_choice_is_named_with_those_there_are(module, option, some, tmp_path, capsys):
    said = refused(module, ["run", option, "pgd21"], tmp_path, capsys)
    assert f"invalid choice 'pgd21' for argument '{option}'. Expected one of (" in said
    for choice in some:
        assert f"'{choice}'" in said


@pytest.mark.parametrize("module", [command, corruptions_command, features_command, maps_command])
def test_a_negative_seed_is_refused(module, checkpoint, tmp_path, capsys):
    others = OUT if module in (features_command, maps_command) else []
    said = refused(module, [checkpoint, *others, "--seed", "-1"], tmp_path, capsys)
    assert said == "error: seed is -1; expected 0 or more"


@pytest.mark.parametrize(
    ("module", "args", "message"),
    [
        (obfuscation_command, ["RUN", "--epsilon", "nan"], "epsilon is nan; expected a bound above 0 and at most 1"),
        (obfuscation_command, ["RUN", *FEW, "--version", "none"], "none/manifest.json cannot be read (No such file"),
        (obfuscation_command, ["RUN", *FEW, "--twin", "none"], "none/config.json cannot be read (No such file"),
        (corruptions_command, ["RUN", "--batch", "0"], "batch is 0; expected 1 or more"),
        (command, ["RUN", "--restarts", "0"], "restarts is 0; expected 1 or more"),
        (compare_command, ["RUN", "none"], "none/config.json cannot be read (No such file or directory); expected"),
        (cost_command, ["--batch", "0"], "batch is 0; expected 1 or more"),
        (cost_command, ["--pairs", "0"], "pairs is 0; expected 1 or more"),
        (tables_command, [*OUT, "--table", "8"], "table is '8'; expected some of 1, 2, 3"),
        (figures_command, [*OUT, "--figure", "3"], "figure is '3'; expected some of A1, A2"),
    ],
)
def test_what_else_is_out_of_range_is_named(module, args, message, checkpoint, tmp_path, capsys):
    args = [checkpoint if arg == "RUN" else arg for arg in args]
    assert refused(module, args, tmp_path, capsys).startswith(f"error: {message}")


def network(path, **model):
    """A run folder with random weights of such a network."""
    run = made_up(path, model={"width": 4} | model)
    RunFolder(run).save_weights("best", RunFolder(run).config().model.build().state_dict())
    return run


@pytest.mark.parametrize(
    ("module", "option"), [(command, "--attacks"), (features_command, "--attack"), (maps_command, "--attack")]
)
@pytest.mark.parametrize(
    ("mask", "attack", "kinds"),
    [
        ("greedy", "relaxed_mask", "gumbel or binary"),
        ("random", "relaxed_mask", "gumbel or binary"),
        ("binary", "mask_alone", "gumbel"),
    ],
)
def test_an_attack_through_masks_that_are_not_there_is_refused(module, option, mask, attack, kinds, tmp_path, capsys):
    run = network(tmp_path / "run", mask=mask)
    others = [] if module is command else OUT
    said = refused(module, [run, *others, option, attack], tmp_path, capsys)
    assert said == f"error: {attack} goes through masks of the kind {kinds}; the mask of {run} is {mask}. Leave it out"


@pytest.mark.parametrize("rival", ["cas", "fd"])
def test_of_attacks_on_fsr_rivals_with_probes_can_have_those_on_heads(rival, tmp_path, capsys):
    run = network(tmp_path / "run", fsr=False, rival=rival)
    said = refused(command, [run, "--attacks", "all_heads", "relaxed_mask"], tmp_path, capsys)
    names = "relaxed_mask" if rival == "cas" else "all_heads, relaxed_mask"
    assert said == f"error: {names} attack the masks and heads of FSR, which {run} has not. Name others by --attacks"


@pytest.mark.parametrize(
    ("module", "option"), [(command, "--attacks"), (features_command, "--attack"), (maps_command, "--attack")]
)
def test_without_its_package_autoattack_is_refused_before_anything_is_measured(
    module, option, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    run = network(tmp_path / "run")
    others = [] if module is command else OUT
    said = refused(module, [run, *others, option, "autoattack"], tmp_path, capsys)
    assert said == "error: autoattack needs pyautoattack. Install it with: pip install '.[eval]'"


def test_restarts_without_random_starts_are_refused(checkpoint, tmp_path, capsys):
    message = refused(command, [checkpoint, *FEW, "--restarts", "5", "--no-random-start"], tmp_path, capsys)
    assert "restarts is 5 without random starts, which would all end alike" in message


@pytest.mark.parametrize("options", [["--restarts", "5"], ["--no-random-start"], ["--feature", "robust"]])
def test_feature_matching_with_options_that_it_would_pass_over_is_refused(options, checkpoint, tmp_path, capsys):
    given = [checkpoint, "--attacks", "pgd20", "feature_matching", *options]
    assert "feature_matching" in refused(command, given, tmp_path, capsys)


def test_images_are_not_compared_with_themselves(checkpoint, tmp_path, capsys):
    message = refused(features_command, [checkpoint, *OUT, "--split", "train"], tmp_path, capsys)
    assert "split is 'train', whose images are the neighbours; expected another" in message


@pytest.mark.parametrize(
    ("attack", "least"), [("square", 2), ("random_noise", 2), ("nattack", 301), ("hop_skip_jump", 120)]
)
def test_queries_for_less_than_one_step_are_refused(attack, least, checkpoint, tmp_path, capsys):
    said = refused(command, [checkpoint, "--attacks", attack, "--queries", least - 1], tmp_path, capsys)
    assert said == f"error: queries is {least - 1}; expected {least} or more, the price of one step of {attack}"


@pytest.mark.parametrize("name", ["", "corruptions"])
def test_a_refusal_leaves_no_trace_on_the_command_line(name, tmp_path):
    words = [*([name] if name else []), str(tmp_path / "none")]
    done = subprocess.run([sys.executable, "-m", "training.evaluation", *words], capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr
    assert "Traceback" not in done.stderr
