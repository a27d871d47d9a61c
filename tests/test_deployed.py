"""What the manifest of a model version says of its files, and whether it is of this network."""

import json
from pathlib import Path

import pytest
from made_up_runs import run_with_weights

from export.command import _training
from training.checkpoint import CheckpointError, RunFolder
from training.evaluation.deployed import checked, deployed, through_uploads
from training.evaluation.origin import check_is_of
from training.evaluation.results import weights_sha256

ROOT = Path(__file__).parent.parent
EPSILON = 8 / 255


@pytest.mark.parametrize(
    ("precision", "accuracy", "status"),
    [("fp32", 0.498, "pass"), ("fp32", 0.492, "fail"), ("bf16", 0.492, "pass"), ("bf16", 0.488, "fail")],
)
def test_a_deployed_file_is_held_to_its_checkpoint(tmp_path, precision, accuracy, status):
    ours = {"attack": "pgd20", "definition": "", "epsilon": 0.1, "n": 9, "data_sha256": "", "seed": 0, "accuracy": 0.5}
    ours |= {"runtime": "onnxruntime", "precision": "fp32"}
    other = ours | {"precision": precision, "accuracy": accuracy}
    theirs = [other, ours | {"precision": "int8"}]  # the worst of all counts, not the last
    (tmp_path / "manifest.json").write_text(json.dumps({"accuracies": theirs, "checkpoint_accuracies": [ours]}))
    assert deployed(tmp_path).status == status
    assert "pgd20@25.5/255 (n = 9, onnxruntime, int8) 0.00" in deployed(tmp_path).found
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"manifest.json is no manifest of a model version"):
        deployed(tmp_path)


def exported(folder, run, weights="best", **others):
    """A manifest as python -m export writes it, as far as it tells networks apart."""
    config = RunFolder(run).config()
    training = _training(config, weights, weights_sha256(run, weights)) | others
    told = {name: value for name, value in training.items() if value is not None}
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({"training": told, "classes": config.classes}))
    return folder


def test_a_version_is_judged_with_the_weights_it_was_exported_from(tmp_path):
    run = run_with_weights(tmp_path / "run")
    other = run_with_weights(tmp_path / "other", b"other weights")
    check_is_of(exported(tmp_path / "1", run), run, "best")
    with pytest.raises(CheckpointError, match=r"1 was exported from another network than .*other: weights_sha256 is"):
        check_is_of(tmp_path / "1", other, "best")
    (run / "last.safetensors").write_bytes(b"weights")  # the best weights may be the last
    check_is_of(tmp_path / "1", run, "last")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 1}, "seed is 0, expected 1"),
        ({"model": {"width": 8}}, "model.width is None, expected 8"),
        ({"recipe": {"epochs": 3}}, "recipe.epochs is 100, expected 3"),
    ],
)
def test_a_manifest_without_the_digest_of_the_weights_is_compared_by_what_it_says(tmp_path, other, message):
    run = run_with_weights(tmp_path / "run")
    version = exported(tmp_path / "1", run, weights_sha256=None, model={"name": "resnet18", "width": None})
    check_is_of(version, run, "best")
    with pytest.raises(CheckpointError, match=message):
        check_is_of(version, run_with_weights(tmp_path / "other", **other), "best")


def test_the_version_that_ships_is_one_of_its_checkpoint():
    check_is_of(ROOT / "models" / "cifar10-fsr" / "1", ROOT / "checkpoints" / "cifar10-fsr", "best")


def test_a_version_of_no_run_is_refused(tmp_path):
    run = run_with_weights(tmp_path / "run")
    (tmp_path / "manifest.json").write_text(json.dumps({"training": {"method": "adopted"}, "classes": ["a", "b"]}))
    with pytest.raises(CheckpointError, match="was not exported from a run; expected a version made from"):
        check_is_of(tmp_path, run, "best")
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"manifest.json is no manifest of a model version"):
        check_is_of(tmp_path, run, "best")


def test_figures_of_uploads_come_from_the_manifest(tmp_path):
    one = {"definition": "", "epsilon": EPSILON, "n": 100, "data": "uploads", "data_sha256": "1", "seed": 0}
    shares = {"decoded_upload": 0.4, "png_upload": 0.42, "jpeg_upload": 0.44}
    clean = [one | {"attack": f"clean_{kind}_upload", "epsilon": 0.0, "accuracy": 0.7} for kind in ("png", "jpeg")]
    attacked = [one | {"attack": f"pgd20_{kind}", "accuracy": share} for kind, share in shares.items()]

    def verdict(accuracies):
        (tmp_path / "manifest.json").write_text(json.dumps({"accuracies": accuracies, "checkpoint_accuracies": []}))
        return through_uploads(tmp_path, EPSILON)

    found = verdict([*clean, *attacked])
    assert found.status == "figure"
    assert found.found == (
        "clean_png_upload 70.00%, clean_jpeg_upload 70.00%, pgd20_decoded_upload 40.00%, pgd20_png_upload 42.00%, "
        "pgd20_jpeg_upload 44.00%; n = 100, uploads"
    )
    elsewhere = [*clean, *attacked[:2], attacked[2] | {"data_sha256": "2"}]
    stronger = [*clean, *attacked[:2], attacked[2] | {"epsilon": 2 * EPSILON}]
    for incomplete in ([], clean, elsewhere, stronger):
        found = verdict(incomplete)
        assert found.status == "not run"
        assert found.found.startswith(f"measure it with python -m export.uploads {tmp_path} --data DATA")


def test_what_checks_find_and_miss_comes_from_the_manifest(tmp_path):
    clean = {
        "check": "probe",
        "attack": "clean",
        "epsilon": 0.0,
        "false_alarm_rate": 0.01,
        "suspicious": 0.008,
        "n": 500,
    }
    found = clean | {"attack": "pgd20", "epsilon": EPSILON, "suspicious": 0.02, "n": 70}

    def verdict(**manifest):
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        return checked(tmp_path, EPSILON)

    loose = [one | {"false_alarm_rate": 0.05, "suspicious": 0.5} for one in (clean, found)]
    stronger = found | {"epsilon": 2 * EPSILON}
    judged = verdict(checks=[clean, found, stronger, *loose])
    assert judged.status == "figure"
    assert judged.found == "at 1% false alarms, probe: 0.80% of clean (n = 500), probe: 2.00% of pgd20 (n = 70)"
    for missing in (verdict(), verdict(checks=[])):
        assert missing.status == "not run"
        assert missing.found == f"measure it with python -m export.checks {tmp_path} --data DATA"
    assert checked(None, EPSILON).status == "not run"
