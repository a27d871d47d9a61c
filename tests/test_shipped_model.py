"""The model that ships is as robust as the README says. Needs the data: DATA=FOLDER make test-slow."""

import os
import re
import shutil
from pathlib import Path

import pytest

from export.command import Arguments as ExportArguments
from export.command import export
from export.verification import Arguments as VerifyArguments
from export.verification import verify
from fsr_serve.artifact import read_version
from fsr_serve.session import OnnxModel
from training.checkpoint import RunFolder
from training.data import load_images, to_floats
from training.evaluation.command import Arguments, report

ROOT = Path(__file__).parent.parent
CHECKPOINT = ROOT / "checkpoints" / "cifar10-fsr"
DATA = Path(os.environ.get("DATA", ROOT / "data" / "cifar10"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.exists(), reason=f"CIFAR-10 (JPEG) is not at {DATA}"),
]


def intervals(text):
    """attack -> ends of its 95 % interval, in percent."""
    return {
        name: (float(low), float(high))
        for name, low, high in re.findall(r"^(clean|fgsm|pgd20|cw) +[\d.]+% +([\d.]+)% - ([\d.]+)%", text, re.M)
    }


def test_a_new_evaluation_agrees_with_the_readme(tmp_path):
    checkpoint = shutil.copytree(CHECKPOINT, tmp_path / "run")  # evaluations are kept in the run folder
    published = intervals((ROOT / "README.md").read_text())
    names = tuple(name for name in published if name != "clean")
    found = intervals(report(Arguments(checkpoint, data=str(DATA), attacks=names, images=300)))
    assert found.keys() == published.keys()
    assert {"clean", "pgd20"} <= found.keys()
    for name, (low, high) in published.items():
        assert found[name][0] <= high
        assert found[name][1] >= low


def test_the_shipped_file_answers_as_the_checkpoint():
    images = to_floats(load_images(str(DATA), "test").spread(500).pixels)
    exported = OnnxModel(ROOT / "models" / "cifar10-fsr" / "1" / "model.onnx", device="cpu", threads=None)
    expected = RunFolder(CHECKPOINT).load_model("best")(images).detach().numpy()
    assert abs(exported.logits(images.numpy()) - expected).max() < 1e-4


def test_the_manifest_says_of_the_shipped_files_what_a_new_attack_finds(tmp_path):
    version = shutil.copytree(ROOT / "models" / "cifar10-fsr" / "1", tmp_path / "models" / "cifar10-fsr" / "1")
    published = {
        accuracy.attack: accuracy for accuracy in read_version(version).manifest.accuracies if accuracy.n == 5000
    }
    assert {"clean", "pgd20"} <= published.keys()
    found = verify(VerifyArguments(version, str(DATA), images=300, attacks=("fgsm", "pgd20")))
    for accuracy, _ in found:
        assert accuracy.low <= published[accuracy.attack].high
        assert accuracy.high >= published[accuracy.attack].low


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions_of_the_shipped_model_agree_on_labels(tmp_path, precision):
    parity = export(ExportArguments(CHECKPOINT, tmp_path / "cifar10-fsr" / "1", data=str(DATA), precision=precision))
    assert parity.same_labels >= {"fp16": 0.998, "int8": 0.985}[precision]
    # two points of 256 images are five of them; processors round int8 differently
    assert parity.attacked.share >= parity.torch_attacked.share - 0.02
