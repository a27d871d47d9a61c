"""The exported file computes what torch computes, holds no randomness, and appears whole or not at all."""

import json
import os
import shutil

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from export import command, parity
from export.command import Arguments, TargetError, export
from export.graph import fold_batch_norm, write_graph
from export.parity import ParityError, compare
from fsr_serve.artifact import read_version
from fsr_serve.session import OnnxModel
from training.checkpoint import CheckpointError, RunFolder
from training.data import load_images, to_floats
from training.models import BACKBONES, create_model


def with_random_statistics(model):
    """Batch norms as after training: their folding changes every weight."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return model.eval()


@pytest.mark.parametrize("fsr", [False, True])
@pytest.mark.parametrize("name", BACKBONES)
def test_torch_and_onnxruntime_agree_at_any_batch_size(name, fsr, tmp_path):
    model = with_random_statistics(create_model(name, fsr=fsr, width=8))
    write_graph(fold_batch_norm(model), (32, 32), tmp_path)
    exported = OnnxModel(tmp_path / "model.onnx", device="cpu", threads=1)
    for count in (1, 7, 64):
        images = torch.rand(count, 3, 32, 32)
        with torch.no_grad():
            expected = model(images).numpy()
        found = exported.logits(images.numpy())
        assert np.abs(found - expected).max() < 1e-4
        assert np.abs(expected).max() > 0.01, "logits too small to tell"


def graph(folder):
    return onnx.load(folder / "model.onnx", load_external_data=False)


def test_resnet18_has_at_most_66_nodes_one_sigmoid_and_no_randomness(tmp_path):
    write_graph(fold_batch_norm(create_model("resnet18", width=4).eval()), (32, 32), tmp_path)
    operators = [node.op_type for node in graph(tmp_path).graph.node]
    assert len(operators) <= 66
    assert operators.count("Sigmoid") == 1
    assert "BatchNormalization" not in operators
    assert not [
        operator for operator in operators if "Random" in operator or operator in ("Softmax", "Log", "Bernoulli")
    ]


def test_the_auxiliary_head_is_left_out(tmp_path):
    with_fsr = create_model("resnet18", width=4, num_classes=10).eval()
    write_graph(fold_batch_norm(with_fsr), (32, 32), tmp_path)
    heads = [tensor for tensor in graph(tmp_path).graph.initializer if 10 in tensor.dims]
    assert sorted(tuple(tensor.dims) for tensor in heads) == [(10,), (10, 32)]


def test_the_graph_has_the_contracts_tensors_and_no_trace_of_the_machine(models):
    model = graph(models / "colours" / "1")
    (images,), (logits,) = model.graph.input, model.graph.output
    assert (images.name, logits.name) == ("images", "logits")
    shape = [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim]
    assert shape[1:] == [3, 16, 16]
    assert isinstance(shape[0], str), "the batch is dynamic"
    files = b"".join((models / "colours" / "1" / name).read_bytes() for name in ("model.onnx", "manifest.json"))
    assert os.getcwd().encode() not in files
    assert b".py" not in files


def test_the_manifest_says_what_was_trained_and_measured(models):
    version = read_version(models / "colours" / "1")
    manifest = version.manifest
    assert (version.name, version.version) == ("colours", 1)
    assert manifest.classes == ("blue", "green", "red")
    assert (manifest.preprocessing.height, manifest.preprocessing.width) == (16, 16)
    assert manifest.training["data"] == "colours"
    assert manifest.training["method"] == "n_fgsm adversarial training with FSR"
    assert manifest.training["recipe"]["epochs"] == 6
    assert manifest.training["model"]["name"] == "resnet18"
    clean, perturbed = manifest.accuracies
    assert (clean.attack, perturbed.attack) == ("none", "PGD-10, L-infinity 8/255")
    assert clean.n == perturbed.n == 32, "only distinct images count"
    assert clean.low <= clean.accuracy <= clean.high
    assert clean.accuracy >= perturbed.accuracy
    assert manifest.versions["torch"] == torch.__version__


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

    monkeypatch.setattr(command, "fold_batch_norm", altered)
    with pytest.raises(ParityError, match=r"differ from torch's by up to 1.0e-01 over 256 images"):
        export(Arguments(checkpoint, tmp_path / "colours" / "1"))
    assert not (tmp_path / "colours").exists(), "a model without a version would keep a server from starting"


def test_a_file_that_answers_nan_is_refused(models, checkpoint, tiny_data, monkeypatch):
    monkeypatch.setattr(parity.OnnxModel, "logits", lambda self, images: np.full((len(images), 3), np.nan, np.float32))
    data = load_images(str(tiny_data), "test")
    with pytest.raises(ParityError, match="differ from torch's by up to nan"):
        compare(RunFolder(checkpoint).load_model("best"), models / "colours" / "1", to_floats(data.pixels), data.labels)


def test_a_checkpoint_that_is_none_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"config.json cannot be read .* expected a run folder"):
        export(Arguments(tmp_path / "run", tmp_path / "models" / "x" / "1"))
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
