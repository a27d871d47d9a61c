"""A user's own ONNX classifier becomes a version that can be served and attacked."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from export.adoption import Arguments, adopt
from export.errors import ExportError, TargetError
from export.labelled_images import load_as_served
from export.verification import Arguments as VerifyArguments
from export.verification import verify
from fsr_serve.artifact import read_version
from fsr_serve.preprocessing import PixelBudget, decode
from fsr_serve.server import Server
from fsr_serve.session import OnnxModel
from fsr_serve.settings import Settings
from fsr_serve.workers import Worker, make_folder

CLASSES = ("blue", "green", "red")
SIDE = 16


def classifier(
    path,
    *,
    batch="batch",
    last=None,
    names=("pixels", "scores"),
    side=SIDE,
    pixels=TensorProto.FLOAT,
    scores=TensorProto.FLOAT,
    stored=numpy_helper.from_array,
):
    """An ONNX file: one linear layer on normalised pixels, as another project might leave it. `last` ends it."""
    given, answer = names
    weight = np.random.default_rng(0).standard_normal((3 * SIDE * SIDE, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", [given], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["floats", "flat"], ["logits"]),  # a name of ours, inside
        helper.make_node("MatMul", ["logits", "weight"], ["product"]),
        *(last or [helper.make_node("Cast", ["product"], [answer], to=scores)]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info(given, pixels, [batch, 3, side, side])],
        [helper.make_tensor_value_info(answer, scores, [batch, 3])],
        [
            stored(weight, "weight"),
            numpy_helper.from_array(np.array([-1 if batch == "batch" else batch, 3 * SIDE * SIDE]), "flat"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return weight


@pytest.fixture
def images():
    return np.random.default_rng(1).random((4, 3, SIDE, SIDE), dtype=np.float32)


def test_it_answers_as_the_file_does_on_normalised_pixels(tmp_path, images):
    weight = classifier(tmp_path / "linear.onnx")
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    target = tmp_path / "models" / "linear" / "1"
    adopt(Arguments(tmp_path / "linear.onnx", target, CLASSES, mean=mean, std=std))
    normalised = (images - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    found = OnnxModel(target / "model.onnx", device="cpu", threads=1).logits(images)
    np.testing.assert_allclose(found, normalised.reshape(4, -1) @ weight, atol=1e-3)


def test_what_was_adopted_can_be_adopted(tmp_path, images):
    classifier(tmp_path / "x.onnx")
    adopt(Arguments(tmp_path / "x.onnx", tmp_path / "x" / "1", CLASSES))
    for number in (2, 3):
        before = tmp_path / "x" / str(number - 1) / "model.onnx"
        adopt(Arguments(before, tmp_path / "x" / str(number), CLASSES))
    first, *later = (OnnxModel(tmp_path / "x" / str(n) / "model.onnx", device="cpu", threads=1) for n in (1, 2, 3))
    for model in later:
        np.testing.assert_allclose(model.logits(images), first.logits(images), rtol=1e-5)


def test_weights_are_stored_once_however_the_file_holds_them(tmp_path, images):
    def as_numbers(array, name):
        return helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.ravel())

    weight = classifier(tmp_path / "linear.onnx", stored=as_numbers)
    target = tmp_path / "models" / "linear" / "1"
    adopt(Arguments(tmp_path / "linear.onnx", target, CLASSES))
    assert (target / "weights.data").stat().st_size == weight.nbytes
    assert (target / "model.onnx").stat().st_size < weight.nbytes
    found = OnnxModel(target / "model.onnx", device="cpu", threads=1).logits(images)
    np.testing.assert_allclose(found, images.reshape(4, -1) @ weight, atol=1e-3)


def test_weights_may_be_sparse(tmp_path, images):
    weight = classifier(tmp_path / "dense.onnx")
    model = onnx.load(tmp_path / "dense.onnx")
    (dense,) = (tensor for tensor in model.graph.initializer if tensor.name == "weight")
    model.graph.initializer.remove(dense)
    values = numpy_helper.from_array(weight.ravel(), "weight")
    places = numpy_helper.from_array(np.arange(weight.size), "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, weight.shape))
    onnx.save(model, tmp_path / "sparse.onnx")
    adopt(Arguments(tmp_path / "sparse.onnx", tmp_path / "models" / "sparse" / "1", CLASSES))
    found = OnnxModel(tmp_path / "models" / "sparse" / "1" / "model.onnx", device="cpu", threads=1).logits(images)
    np.testing.assert_allclose(found, images.reshape(4, -1) @ weight, atol=1e-3)


def test_branches_may_use_the_names_of_the_contract(tmp_path, images):
    branches = {
        f"{kind}_branch": helper.make_graph(
            [helper.make_node("Mul", ["product", f"{kind}_factor"], [name])],
            kind,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3])],
            [numpy_helper.from_array(np.float32(factor), f"{kind}_factor")],
        )
        for kind, name, factor in (("then", "images", 2), ("else", "logits_of_else", 3))
    }
    positive = [
        helper.make_node("ReduceMax", ["product"], ["greatest"], keepdims=0),
        helper.make_node("Less", ["greatest", "greatest"], ["never"]),
        helper.make_node("Not", ["never"], ["always"]),
        helper.make_node("If", ["always"], ["scores"], **branches),
    ]
    weight = classifier(tmp_path / "linear.onnx", last=positive)
    target = tmp_path / "models" / "linear" / "1"
    adopt(Arguments(tmp_path / "linear.onnx", target, CLASSES))
    found = OnnxModel(target / "model.onnx", device="cpu", threads=1).logits(images)
    np.testing.assert_allclose(found, 2 * images.reshape(4, -1) @ weight, atol=1e-3)


def test_a_version_that_reduces_jpegs_says_so_and_decodes_them_so_for_attacks_too(tmp_path):
    classifier(tmp_path / "linear.onnx")
    split = tmp_path / "data" / "test"
    random = np.random.default_rng(0)
    for name in CLASSES:  # grain: reduced and full decoding give other pixels
        (split / name).mkdir(parents=True)
        Image.fromarray(random.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(split / name / "0.jpg")
    pixels = {}
    for scale in ("full", "reduced"):
        target = tmp_path / "models" / scale / "1"
        adopt(Arguments(tmp_path / "linear.onnx", target, CLASSES, jpeg_scale=scale))
        manifest = read_version(target).manifest
        assert manifest.preprocessing.jpeg_scale == scale
        found = pixels[scale] = load_as_served(str(tmp_path / "data"), "test", manifest, None).images
        budget = PixelBudget(2**20, 2**20)
        served = decode((split / "blue" / "0.jpg").read_bytes(), manifest.preprocessing, max_bytes=2**20, budget=budget)
        np.testing.assert_array_equal(found[0], served / np.float32(255))
    assert not np.array_equal(pixels["full"], pixels["reduced"])


def test_probabilities_become_logits_with_the_same_softmax(tmp_path, images):
    classifier(tmp_path / "linear.onnx", last=[helper.make_node("Softmax", ["product"], ["scores"])])
    target = tmp_path / "models" / "linear" / "1"
    with pytest.raises(ExportError, match="seems to answer with probabilities; say so by --probabilities"):
        adopt(Arguments(tmp_path / "linear.onnx", target, CLASSES))
    assert not target.parent.exists()
    adopt(Arguments(tmp_path / "linear.onnx", target, CLASSES, probabilities=True))
    found = OnnxModel(target / "model.onnx", device="cpu", threads=1).logits(images)
    session = onnxruntime.InferenceSession(tmp_path / "linear.onnx", providers=["CPUExecutionProvider"])
    (original,) = session.run(None, {"pixels": images})
    np.testing.assert_allclose(torch.softmax(torch.from_numpy(found), 1).numpy(), original, atol=1e-5)


def test_it_is_served_attacked_and_says_what_it_lacks(tmp_path, tiny_data):
    classifier(tmp_path / "linear.onnx", names=("images", "logits_out"))
    target = tmp_path / "models" / "linear" / "1"
    adopt(Arguments(tmp_path / "linear.onnx", target, CLASSES))
    server = Server.start(Settings(models=tmp_path / "models", threads=1), Worker(make_folder()))
    assert server.classifier.classes == CLASSES
    clean, attacked = verify(VerifyArguments(target, str(tiny_data), attacks=("square",), queries=20, threads=1))
    assert attacked.found.accuracy <= clean.found.accuracy
    manifest = read_version(target).manifest
    assert set(manifest.missing) == {"evidence.onnx", "attack.onnx"}
    assert manifest.training == {"method": "unknown: adopted from linear.onnx"}
    assert manifest.versions["opset"] == "17"


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"batch": 1}, {}, "cannot run a batch of 3: .* Export it with a dynamic batch dimension"),
        ({}, {"classes": ("blue", "red")}, r"answers 1 images with shape \(1, 3\); expected .* \(1, 2\)"),
        ({"side": "any"}, {}, "takes images of any size, .* say by --image-shape"),
        ({}, {"output": "boxes"}, "output is 'boxes'; .* has scores"),
        ({}, {"std": (0.0, 1.0, 1.0)}, "std is .* expected positive numbers"),
        ({}, {"std": (1.0, float("nan"), 1.0)}, "std is .* expected positive numbers"),
        ({}, {"mean": (0.0, float("inf"), 0.0)}, "mean is .* expected finite numbers"),
        ({}, {"classes": ("cat",)}, "classes are cat; expected two or more different names"),
        ({}, {"classes": ("cat", "dog", "cat")}, "classes are cat, dog, cat; expected two or more different names"),
        ({}, {"image_shape": (-8, 8)}, r"image_shape is \(-8, 8\); expected a height and a width of 1 to 4096 pixels"),
        ({}, {"image_shape": (0, 0)}, r"image_shape is \(0, 0\); expected a height and a width of 1 to 4096 pixels"),
        ({"side": "any"}, {"image_shape": (10**6, 10**6)}, "expected a height and a width of 1 to 4096 pixels"),
        ({"pixels": TensorProto.UINT8}, {}, "pixels is uint8; expected float32 .* pixels of 0 to 255, say --std"),
        ({"scores": TensorProto.DOUBLE}, {}, "scores is double; expected float32"),
    ],
)
def test_what_cannot_be_served_is_refused_and_leaves_nothing(tmp_path, options, changes, message):
    classifier(tmp_path / "linear.onnx", **options)
    arguments = {"classes": CLASSES} | changes
    with pytest.raises(ExportError, match=message):
        adopt(Arguments(tmp_path / "linear.onnx", tmp_path / "models" / "linear" / "1", **arguments))
    assert not (tmp_path / "models").exists(), "a model without a version would keep a server from starting"


def test_a_file_that_is_no_onnx_model_is_refused(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(ExportError, match="is no ONNX model that can be read"):
        adopt(Arguments(tmp_path / "x.onnx", tmp_path / "models" / "x" / "1", CLASSES))


def test_an_existing_version_is_kept(tmp_path):
    classifier(tmp_path / "linear.onnx")
    (tmp_path / "models" / "linear" / "1").mkdir(parents=True)
    with pytest.raises(TargetError, match="a version is never overwritten"):
        adopt(Arguments(tmp_path / "linear.onnx", tmp_path / "models" / "linear" / "1", CLASSES))
