"""The exported file computes what torch computes, holds no randomness, and appears whole or not at all."""

import json
import os
import shutil

import numpy as np
import onnx
import pytest
import torch
from conftest import colour
from PIL import Image

from export import parity, version
from export.command import Arguments, export
from export.errors import ParityError, TargetError
from export.evidence import EvidenceNet
from export.folding import fold_batch_norm
from export.graph import restricted, to_onnx
from export.parity import compare
from fsr_serve.artifact import read_version
from training.checkpoint import CheckpointError, RunFolder
from training.data import ImageData, load_images, to_floats
from training.evaluation.results import weights_sha256
from training.models import create_model
from training.source import DataError


def plain_graph(model):
    """What becomes model.onnx: the part of the evidence graph that the logits need."""
    network = EvidenceNet(fold_batch_norm(model.eval()), (32, 32)).eval()
    evidence = to_onnx(network, (torch.zeros(2, 3, 32, 32),), {"images": True}, network.output_names)
    return restricted(evidence, ["logits"])


def test_resnet18_has_at_most_66_nodes_one_sigmoid_and_no_randomness():
    operators = [node.op_type for node in plain_graph(create_model("resnet18", width=4)).graph.node]
    assert len(operators) <= 66
    assert operators.count("Sigmoid") == 1
    assert "BatchNormalization" not in operators
    assert not [
        operator for operator in operators if "Random" in operator or operator in ("Softmax", "Log", "Bernoulli")
    ]


def test_few_held_out_images_are_joined_by_others_of_every_class():
    labels = torch.arange(4).repeat_interleave(300)  # sorted by class, as folders are
    images = ImageData(torch.zeros(len(labels), 3, 8, 8, dtype=torch.uint8), labels, tuple("abcd"))
    compared = version._filled(images.subset(torch.zeros(56, dtype=torch.long)), images)
    assert (compared.labels[:56].tolist(), compared.labels[56:].bincount().tolist()) == ([0] * 56, [50] * 4)
    few = images.subset(torch.arange(3))
    assert len(version._filled(few, few)) == version.COMPARED_IMAGES


def test_the_auxiliary_head_is_left_out():
    graph = plain_graph(create_model("resnet18", width=4, num_classes=10))
    heads = [tensor for tensor in graph.graph.initializer if 10 in tensor.dims]
    assert sorted(tuple(tensor.dims) for tensor in heads) == [(10,), (10, 32)]


def test_the_graph_has_the_contracts_tensors_and_no_trace_of_the_machine(models):
    model = onnx.load(models / "colours" / "1" / "model.onnx", load_external_data=False)
    (images,), (logits,) = model.graph.input, model.graph.output
    assert (images.name, logits.name) == ("images", "logits")
    shape = [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim]
    assert shape[1:] == [3, 16, 16]
    assert isinstance(shape[0], str), "the batch is dynamic"
    files = b"".join(
        (models / "colours" / "1" / name).read_bytes()
        for name in ("model.onnx", "evidence.onnx", "attack.onnx", "manifest.json")
    )
    assert os.getcwd().encode() not in files
    assert b".py" not in files


def test_the_manifest_says_what_was_trained_and_measured(models, checkpoint):
    version = read_version(models / "colours" / "1")
    manifest = version.manifest
    assert (version.name, version.version) == ("colours", 1)
    assert manifest.classes == ("blue", "green", "red")
    assert (manifest.preprocessing.height, manifest.preprocessing.width) == (16, 16)
    assert manifest.training["data"] == "colours"
    assert manifest.training["method"] == "at by n_fgsm with FSR"
    assert manifest.training["recipe"]["epochs"] == 6
    assert manifest.training["model"]["name"] == "resnet18"
    assert manifest.training["weights_sha256"] == weights_sha256(checkpoint, "best")
    assert manifest.precision == "fp32"
    for accuracies, runtime in ((manifest.accuracies, "onnxruntime"), (manifest.checkpoint_accuracies, "torch")):
        clean, attacked = accuracies
        assert (clean.attack, clean.epsilon, attacked.attack, attacked.epsilon) == ("clean", 0, "pgd20", 8 / 255)
        assert attacked.definition == "cross-entropy, 20 steps of epsilon/10, random start"
        assert clean.n == attacked.n == 32, "only held-out images count"
        assert clean.low <= clean.accuracy <= clean.high
        assert clean.accuracy >= attacked.accuracy
        assert clean.seconds <= attacked.seconds  # tenths of a second
        assert clean.runtime.startswith(runtime)
    assert manifest.versions["torch"] == torch.__version__
    assert manifest.missing == {}


def test_exported_files_can_be_read_by_a_server_of_another_user(models):
    for path in (models / "colours" / "1").iterdir():
        assert path.stat().st_mode & 0o044 == 0o044


def test_export_never_overwrites(checkpoint, models):
    before = (models / "colours" / "1" / "manifest.json").read_bytes()
    with pytest.raises(TargetError, match="exists; a version is never overwritten, so export to the next number"):
        export(Arguments(checkpoint, models / "colours" / "1"))
    assert (models / "colours" / "1" / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("name", ["latest", "0", "1.5", "-1"])
def test_a_version_is_a_whole_number(checkpoint, tmp_path, name):
    with pytest.raises(TargetError, match="expected MODELS/NAME/VERSION with a whole number as VERSION"):
        export(Arguments(checkpoint, tmp_path / "colours" / name))


def test_a_file_that_disagrees_with_torch_is_not_left_behind(checkpoint, tmp_path, monkeypatch):
    def altered(model):
        folded = fold_batch_norm(model)
        with torch.no_grad():
            folded.network.linear.bias[0] += 0.1
        return folded

    monkeypatch.setattr(version, "fold_batch_norm", altered)
    with pytest.raises(ParityError, match=r"differ from torch's by up to 1.0e-01 over 512 images, clean and attacked"):
        export(Arguments(checkpoint, tmp_path / "colours" / "1"))
    assert not (tmp_path / "colours").exists(), "a model without a version would keep a server from starting"


def test_a_file_that_answers_nan_is_refused(models, checkpoint, tiny_data, monkeypatch):
    monkeypatch.setattr(parity.OnnxModel, "logits", lambda self, images: np.full((len(images), 3), np.nan, np.float32))
    data, model = load_images(str(tiny_data), "test"), RunFolder(checkpoint).load_model("best")
    with pytest.raises(ParityError, match="differ from torch's by up to nan"):
        compare(model, models / "colours" / "1", to_floats(data.pixels), data.labels, seed=0, precision="fp32")


def test_a_checkpoint_that_is_none_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"config.json cannot be read .* expected a run folder"):
        export(Arguments(tmp_path / "run", tmp_path / "models" / "x" / "1"))
    assert not (tmp_path / "models").exists()


def other_images(folder, classes=("blue", "green", "red")):
    """A data set of as many classes as `tiny_data`, with other images."""
    random = np.random.default_rng(1)
    for split in ("train", "test"):
        for channel, name in zip((2, 1, 0), classes, strict=True):
            (folder / split / name).mkdir(parents=True)
            for index in range(20):
                Image.fromarray(colour(random, channel)).save(folder / split / name / f"{index}.png")
    return folder


def test_without_the_training_data_other_images_are_compared_and_named(checkpoint, tmp_path):
    data = other_images(tmp_path / "others")
    target = tmp_path / "models" / "colours" / "1"
    assert len(export(Arguments(checkpoint, target, str(data), precision="int8")).clean.flags) == 256
    manifest = read_version(target).manifest
    assert manifest.training["data"] == "colours"
    assert {(accuracy.data, accuracy.n) for accuracy in manifest.accuracies} == {(f"{data}, split test", 60)}


def test_other_images_must_have_the_classes_of_the_run(checkpoint, tmp_path):
    data = other_images(tmp_path / "others", ("blue", "green", "yellow"))
    with pytest.raises(
        DataError, match=r"others' is not the training data of .*, and has not its classes, blue, green"
    ):
        export(Arguments(checkpoint, tmp_path / "models" / "colours" / "1", str(data)))
    assert not (tmp_path / "models").exists()


def test_weights_of_another_class_count_are_refused(checkpoint, tmp_path):
    run = shutil.copytree(checkpoint, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["model"]["num_classes"] = 5
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        CheckpointError, match=r"best.safetensors does not hold the weights of this run.*\n.*size mismatch"
    ):
        export(Arguments(run, tmp_path / "models" / "x" / "1"))
    assert not (tmp_path / "models").exists()
