"""A file whose evidence, gradients or robustness are not the network's is refused."""

import math
import shutil

import numpy as np
import onnx
import pytest
from conftest import SIDE
from onnx import helper, numpy_helper

from export import parity
from export.errors import ParityError
from training.checkpoint import RunFolder
from training.data import load_images, to_floats


@pytest.fixture
def version(models, tmp_path):
    return shutil.copytree(models / "colours" / "1", tmp_path / "1")


@pytest.fixture
def compare(checkpoint, tiny_data, version):
    """The comparison of the version with the network it was made of, on images that this one gets right."""
    model = RunFolder(checkpoint).load_model("best")
    data = load_images(str(tiny_data), "train").spread(64)
    images = to_floats(data.pixels)
    right = model(images).argmax(dim=1) == data.labels
    return lambda: parity.compare(model, version, images[right], data.labels[right], seed=0, precision="fp32")


def alter(file, output, operator, values):
    """Apply an operator of ONNX and these values to one output of the file."""
    model = onnx.load(file, load_external_data=False)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32), "values"))
    (node,) = (node for node in model.graph.node if output in node.output)
    node.output[list(node.output).index(output)] = "unaltered"
    model.graph.node.append(helper.make_node(operator, ["unaltered", "values"], [output]))
    file.write_bytes(model.SerializeToString())


def test_evidence_may_be_off_by_1e_4_and_no_more(version, compare):
    original = (version / "evidence.onnx").read_bytes()
    alter(version / "evidence.onnx", "mask_mass_0", "Add", 5e-5)
    compare()
    (version / "evidence.onnx").write_bytes(original)
    alter(version / "evidence.onnx", "mask_mass_0", "Add", 2e-4)
    with pytest.raises(ParityError, match=r"evidence.onnx: mask_mass_0 differs .* by up to 2.0e-04"):
        compare()


@pytest.mark.parametrize("rows", [1, SIDE], ids=["in one row", "everywhere"])
def test_gradients_must_have_the_sign_of_torchs(version, compare, rows):
    signs = np.ones((SIDE, SIDE))
    signs[:rows] = -1
    alter(version / "attack.onnx", "gradient", "Mul", signs)
    with pytest.raises(ParityError, match=r"attack.onnx: .* of the large gradients have .* expected at least 99.9%"):
        compare()


def break_all_but(kept, monkeypatch):
    """In place of PGD through the attack graph: the first images stay, the others become some of another class."""

    def attack(graph, attack, epsilon, seed, images, labels, first):
        others = [images[labels != label][0] for label in labels[kept:]]
        return np.stack([*images[:kept], *others])

    monkeypatch.setattr(parity, "by_gradient", attack)


def test_at_least_0_8_of_the_robustness_must_be_kept(compare, monkeypatch):
    least = math.ceil(0.8 * compare().torch_attacked.flags.sum())
    break_all_but(least, monkeypatch)
    assert compare().attacked.flags.sum() == least
    break_all_but(least - 1, monkeypatch)
    with pytest.raises(ParityError, match=r"keeps .* under PGD-20, .* expected at least 0.8 of that"):
        compare()
