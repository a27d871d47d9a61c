"""The model that ships is as robust as the README says. Needs the data: DATA=FOLDER make test-slow."""

import os
import re
from pathlib import Path

import pytest

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


def test_a_new_evaluation_agrees_with_the_readme():
    published = intervals((ROOT / "README.md").read_text())
    names = tuple(name for name in published if name != "clean")
    found = intervals(report(Arguments(CHECKPOINT, data=str(DATA), attacks=names, images=300)))
    assert found.keys() == published.keys()
    assert {"clean", "pgd20"} <= found.keys()
    for name, (low, high) in published.items():
        assert found[name][0] <= high
        assert found[name][1] >= low


def test_the_shipped_file_answers_as_the_checkpoint():
    from fsr_serve.session import OnnxModel

    images = to_floats(load_images(str(DATA), "test").spread(500).pixels)
    exported = OnnxModel(ROOT / "models" / "cifar10-fsr" / "1" / "model.onnx", device="cpu", threads=None)
    expected = RunFolder(CHECKPOINT).load_model("best")(images).detach().numpy()
    assert abs(exported.logits(images.numpy()) - expected).max() < 1e-4
