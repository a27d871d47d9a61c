"""python -m export.verify: the deployed files are attacked, and their manifest says what was found."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version as version_of
from pathlib import Path

import datasets
import numpy as np
import onnxruntime
import pytest
import torch
from conftest import CLASSES
from PIL import Image

from export import measuring
from export.changing import write_manifest
from export.checking import write_checks
from export.errors import VerificationError
from export.labelled_images import load_as_served
from export.measuring import Asked, measured, runtime_of, write_accuracies
from export.verification import Arguments, line, verify
from fsr_serve.artifact import read_version
from fsr_serve.checks.calibration import Calibration
from fsr_serve.errors import ArtifactError
from training.data import load_images, to_floats
from training.evaluation.command import Arguments as EvaluationArguments
from training.evaluation.command import report
from training.evaluation.protocol import RandomStarts
from training.evaluation.results import load_results
from training.source import DataError

SHIPPED = Path(__file__).parent.parent / "models" / "cifar10-fsr" / "1"


@pytest.fixture
def version(models, tmp_path):
    return shutil.copytree(models / "colours" / "1", tmp_path / "colours" / "1")


def run(version, tiny_data, **options):
    options = {"attacks": ("fgsm", "pgd20", "cw", "square"), "queries": 30, "threads": 1} | options
    return {verdict.found.attack: verdict for verdict in verify(Arguments(version, str(tiny_data), **options))}


def test_it_agrees_with_the_evaluation_in_torch_from_the_same_starts(version, checkpoint, tiny_data, tmp_path):
    checkpoint = shutil.copytree(checkpoint, tmp_path / "run")
    found = run(version, tiny_data, split="train", images=300)
    report(
        EvaluationArguments(
            checkpoint, split="train", images=300, attacks=("fgsm", "pgd20", "cw", "square"), queries=30
        )
    )
    for result in load_results(checkpoint):
        deployed = found[result.attack].found
        assert deployed.accuracy == pytest.approx(result.accuracy, abs=0.004)
        assert deployed.definition == result.definition
        assert deployed.data_sha256 == result.data_sha256, "the same pixels"


def test_the_figures_stand_in_the_manifest_with_all_that_makes_them_comparable(version, tiny_data):
    before = read_version(version)
    found = run(version, tiny_data)
    after = read_version(version)
    assert after.sha256 != before.sha256
    assert after.manifest.files == before.manifest.files
    added = after.manifest.accuracies[len(before.manifest.accuracies) :]
    assert added == tuple(verdict.found for verdict in found.values())
    assert [accuracy.attack for accuracy in added] == ["clean", "fgsm", "pgd20", "cw", "square"]
    square = added[-1]
    assert (square.definition, square.n, square.precision, square.seed) == ("Square, 30 queries", 24, "fp32", 0)
    assert square.runtime.startswith("onnxruntime 1.")
    assert square.data == f"{tiny_data}, split test"
    run(version, tiny_data)
    assert len(read_version(version).manifest.accuracies) == len(after.manifest.accuracies), "replaced, not repeated"


def test_figures_and_signatures_that_came_meanwhile_are_kept(version, tiny_data):
    run(version, tiny_data, attacks=("fgsm",))
    before = read_version(version)
    run(version, tiny_data, attacks=("pgd20",))
    write_accuracies(before, [before.manifest.accuracies[-1]])
    assert {one.attack for one in read_version(version).manifest.accuracies} == {"clean", "fgsm", "pgd20"}
    (version / "model.sig").write_text("{}")
    with pytest.raises(VerificationError, match="is signed"):
        write_accuracies(before, before.manifest.accuracies)


def test_figures_of_files_that_were_replaced_meanwhile_are_not_written(version, tiny_data):
    run(version, tiny_data, attacks=())
    measured = read_version(version)
    other = measured.manifest.preprocessing.model_copy(update={"height": 8})
    write_manifest(version, measured.manifest.model_copy(update={"preprocessing": other, "accuracies": ()}))
    before = read_version(version)
    with pytest.raises(VerificationError, match="was replaced while it was measured; nothing was written"):
        write_accuracies(measured, measured.manifest.accuracies)
    with pytest.raises(VerificationError, match="was replaced while it was measured; nothing was written"):
        write_checks(measured, Calibration({"similar": np.zeros(9, np.float32)}, 0.1), ())
    assert read_version(version) == before


def test_it_goes_on_where_it_was_stopped(version, tiny_data, monkeypatch):
    monkeypatch.setattr(measuring, "BATCH", 5)
    whole = run(version, tiny_data, state=version.parent / "whole")
    asked = 0
    write = measuring.FlagsFile.write

    def stop_after_three(self, part, correct, seconds):
        nonlocal asked
        write(self, part, correct, seconds)
        asked += 1
        if asked == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(measuring.FlagsFile, "write", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        run(version, tiny_data, state=version.parent / "stopped")
    monkeypatch.setattr(measuring.FlagsFile, "write", write)
    resumed = run(version, tiny_data, state=version.parent / "stopped")
    flags = [sorted((version.parent / name).iterdir()) for name in ("whole", "stopped")]
    for one, other in zip(*flags, strict=True):
        np.testing.assert_array_equal(np.load(one)["correct"], np.load(other)["correct"])
    assert {name: verdict.found.accuracy for name, verdict in whole.items()} == {
        name: verdict.found.accuracy for name, verdict in resumed.items()
    }


class Answers:
    """A session that always gives the same logits, and counts the images it was shown."""

    runtime, device, precision = "onnxruntime", "cpu", "f32"

    def __init__(self):
        self.images = 0

    def logits(self, images):
        self.images += len(images)
        return np.eye(10, dtype=np.float32)[np.zeros(len(images), int)]


def test_images_decoded_or_resized_otherwise_are_measured_anew(tmp_path):
    shipped = read_version(SHIPPED)
    session, labels = Answers(), np.array([0, 0, 1])
    asked = Asked("clean", "images as they are", 0.0, "data", "0" * 64, 0)

    def shown(**preprocessing):
        before = session.images
        changed = shipped.manifest.preprocessing.model_copy(update=preprocessing)
        version = replace(shipped, manifest=shipped.manifest.model_copy(update={"preprocessing": changed}))
        measured(asked, version, session, labels, lambda part: np.zeros((len(labels[part]), 3, 8, 8)), tmp_path)
        return session.images - before

    assert [shown(), shown(), shown(jpeg_scale="reduced"), shown(height=40), shown()] == [3, 0, 3, 3, 0]


def test_what_was_finished_keeps_its_day_and_another_runtime_is_measured_anew(tmp_path, monkeypatch):
    shipped, labels = read_version(SHIPPED), np.array([0, 0, 1])
    asked = Asked("clean", "images as they are", 0.0, "data", "0" * 64, 0)

    session = Answers()

    def again(*kept):
        version = replace(shipped, manifest=shipped.manifest.model_copy(update={"accuracies": kept}))
        return measured(asked, version, session, labels, lambda part: np.zeros((len(labels[part]), 3)), tmp_path)

    found = again()
    earlier = found.model_copy(update={"measured": "2020-01-01"})
    assert again(earlier) == earlier
    assert again(earlier.model_copy(update={"runtime": "onnxruntime 1.0"})) == found
    with monkeypatch.context() as patch:
        patch.setattr(onnxruntime, "__version__", "9.9.9")
        assert again(found) == found.model_copy(update={"runtime": "onnxruntime 9.9.9"})
        assert session.images == 2 * len(labels)
    assert again(earlier.model_copy(update={"seconds": 7.0})) == found, "of a run on another device"


def test_random_starts_do_not_depend_on_batches_or_on_where_one_begins():
    whole = RandomStarts(3, image_values=12).next((10, 3, 2, 2), 0.1)
    parts = RandomStarts(3, image_values=12)
    np.testing.assert_array_equal(np.concatenate([parts.next((4, 3, 2, 2), 0.1), parts.next((6, 3, 2, 2), 0.1)]), whole)
    np.testing.assert_array_equal(RandomStarts(3, image_values=12, first=7).next((3, 3, 2, 2), 0.1), whole[7:])
    assert np.abs(whole).max() <= 0.1


def test_it_needs_no_torch(version, tiny_data):
    code = "import sys; from export.verification import main; main(); print('torch' in sys.modules)"
    options = ["--data", str(tiny_data), "--attacks", "fgsm", "square", "--queries", "5", "--threads", "1"]
    command = [sys.executable, "-c", code, str(version), *options]
    done = subprocess.run(command, env=os.environ | {"USE_TORCH": "0"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *report, has_torch = done.stdout.splitlines()
    assert [line.split()[0] for line in report] == ["clean", "fgsm", "square"]
    assert has_torch == "False"


def test_a_file_that_is_worse_than_its_checkpoint_is_reported_as_a_failure(version, tiny_data):
    verdict = run(version, tiny_data, attacks=("fgsm",), epsilon=0.5)["fgsm"]
    assert verdict.checkpoint is None
    assert verdict.found.accuracy < 0.97, "so that more can be claimed"
    assert "the checkpoint was not measured on these images" in line(verdict)
    manifest = read_version(version).manifest
    for accuracy, is_too_low in ((verdict.found.accuracy + 0.019, False), (verdict.found.accuracy + 0.021, True)):
        claimed = verdict.found.model_copy(update={"accuracy": accuracy, "runtime": "torch"})
        write_manifest(version, manifest.model_copy(update={"checkpoint_accuracies": (claimed,)}))
        again = run(version, tiny_data, attacks=("fgsm",), epsilon=0.5)["fgsm"]
        assert again.is_too_low == is_too_low
        assert ("TOO LOW" in line(again)) == is_too_low
    own = claimed.model_copy(update={"accuracy": verdict.found.accuracy})
    other = claimed.model_copy(update={"seed": 1})  # more accurate from other random starts
    for both in ((own, other), (other, own)):
        write_manifest(version, manifest.model_copy(update={"checkpoint_accuracies": both}))
        assert run(version, tiny_data, attacks=("fgsm",), epsilon=0.5)["fgsm"].checkpoint == own


def test_images_are_decoded_as_the_server_decodes_them(version, tiny_data):
    served = load_as_served(str(tiny_data), "test", read_version(version).manifest, 10)
    loaded = load_images(str(tiny_data), "test").spread(10)
    assert served.sha256 == loaded.sha256
    np.testing.assert_array_equal(served.images, to_floats(loaded.pixels).numpy())
    assert torch.equal(torch.from_numpy(served.labels), loaded.labels)


def test_a_missing_image_is_named(version, tmp_path):
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    rows = {"img": [Image.new("RGB", (8, 8)), None], "label": [0, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "test-0.parquet")
    with pytest.raises(DataError, match=r"image 1 of .* is missing; expected one for each label"):
        load_as_served(str(tmp_path), "test", read_version(version).manifest, None)


def test_what_cannot_be_verified_is_refused_before_any_work(version, tiny_data, tmp_path):
    with pytest.raises(DataError, match="images is 25; expected 1 to 24"):
        run(version, tiny_data, images=25)
    with pytest.raises(VerificationError, match="epsilon is 8; expected above 0 and at most 1"):
        run(version, tiny_data, epsilon=8)
    with pytest.raises(VerificationError, match="queries is 0; expected 1 or more"):
        run(version, tiny_data, queries=0)
    with pytest.raises(VerificationError, match="seed is -1; expected 0 or more"):
        run(version, tiny_data, seed=-1)
    (version / "model.sig").write_text("{}")
    with pytest.raises(VerificationError, match="is signed, and figures in its manifest would break the signature"):
        run(version, tiny_data)
    (version / "model.sig").unlink()
    content = json.loads((version / "manifest.json").read_text())
    (version / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=r"manifest.json has SHA-256 .* one of them was altered"):
        run(version, tiny_data)


def test_the_runtime_stands_with_its_version(version, tiny_data):
    found = run(version, tiny_data, attacks=(), runtime="openvino")["clean"].found
    assert found.runtime == f"openvino {version_of('openvino')}"
    assert found.accuracy == run(version, tiny_data, attacks=())["clean"].found.accuracy


def test_figures_of_a_gpu_say_so():
    session = Answers()
    here = runtime_of(session)
    session.device = "cuda"
    assert runtime_of(session) == f"{here}, CUDA"


def test_without_an_attack_graph_only_square_is_possible(version, tiny_data):
    manifest = read_version(version).manifest
    (version / "attack.onnx").unlink()
    without = {
        "files": {name: digest for name, digest in manifest.files.items() if name != "attack.onnx"},
        "tensors": {name: tensors for name, tensors in manifest.tensors.items() if name != "attack.onnx"},
        "missing": {"attack.onnx": "left out by --no-attack-graph"},
    }
    write_manifest(version, manifest.model_copy(update=without))
    with pytest.raises(VerificationError, match=r"no attack graph \(left out by --no-attack-graph\), which pgd20 need"):
        run(version, tiny_data, attacks=("pgd20", "square"))
    assert run(version, tiny_data, attacks=("square",))["square"].found.n == 24
