"""Any torch network becomes a model version."""

import importlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from export.command import ModuleArguments, export, main
from export.errors import ExportError
from fsr_serve.artifact import read_version
from fsr_serve.session import OnnxModel
from training.data import load_images, to_floats

CODE = """
from torch import nn

def create():
    convolution = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*convolution, nn.Flatten(), nn.Linear(196, 3))

def broken():
    raise KeyError("width")

def number():
    return 3

def many():
    return nn.Sequential(*create()[:-1], nn.Linear(196, 10))

def larger():
    return nn.Sequential(*create()[:-1], nn.Linear(900, 3))

def two_heads():
    network = create()
    network.forward = lambda images: [images, images]
    return network

def unnormalised():
    network = create()
    network[1] = nn.BatchNorm2d(4, track_running_stats=False)
    return network

def shuffled():
    return nn.Sequential(nn.ReflectionPad2d(1), *create())
"""


@pytest.fixture
def weights(tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    torch.manual_seed(0)
    save_file(importlib.import_module("my_networks").create().state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def arguments(weights, tiny_data, tmp_path, module="my_networks:create", **options):
    return ModuleArguments(tmp_path / "models" / "mine" / "1", module, weights, str(tiny_data), **options)


def test_a_users_own_network_is_exported_with_all_graphs(weights, tiny_data, tmp_path):
    export(arguments(weights, tiny_data, tmp_path))
    version = tmp_path / "models" / "mine" / "1"
    manifest = read_version(version).manifest
    assert manifest.classes == ("blue", "green", "red")
    assert set(manifest.tensors) == {"model.onnx", "evidence.onnx", "attack.onnx"}
    assert manifest.tensors["evidence.onnx"].outputs == ("logits", "features")
    assert manifest.training == {"method": "unknown: exported from a module", "module": "my_networks:create"}
    model = importlib.import_module("my_networks").create().eval()
    model.load_state_dict(load_file(weights))
    images = to_floats(load_images(str(tiny_data), "test").pixels)
    with torch.no_grad():
        expected = model(images).numpy()
    found = OnnxModel(version / "model.onnx", device="cpu", threads=1).logits(images.numpy())
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_attack_graph_can_be_left_out(weights, tiny_data, tmp_path):
    export(arguments(weights, tiny_data, tmp_path, attack_graph=False))
    manifest = read_version(tmp_path / "models" / "mine" / "1").manifest
    assert manifest.missing == {"attack.onnx": "left out by --no-attack-graph"}
    assert [accuracy.attack for accuracy in manifest.accuracies] == ["clean"]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("my_networks", "module is 'my_networks'; expected PACKAGE:FACTORY"),
        ("my_networks:missing", "my_networks:missing cannot be built: AttributeError"),
        ("no_such_package:create", "no_such_package:create cannot be built: ModuleNotFoundError"),
        ("my_networks:broken", "my_networks:broken cannot be built: KeyError: 'width'"),
        ("my_networks:number", "my_networks:number returns a int; expected a torch.nn.Module"),
    ],
)
def test_a_factory_that_builds_no_network_is_named(weights, tiny_data, tmp_path, module, message):
    with pytest.raises(ExportError, match=message):
        export(arguments(weights, tiny_data, tmp_path, module))
    assert not (tmp_path / "models").exists()


def test_weights_of_another_network_are_refused(weights, tiny_data, tmp_path):
    with pytest.raises(ExportError, match=r"weights.safetensors does not hold the weights of my_networks:shuffled"):
        export(arguments(weights, tiny_data, tmp_path, "my_networks:shuffled"))


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("many", r"answers two images with shape \(2, 10\); expected logits of shape \(2, 3\), one for each of the 3"),
        ("two_heads", r"answers two images with a list; expected logits of shape \(2, 3\)"),
        ("larger", r"fails on images of 16x16 pixels: RuntimeError: .* Expected a network for images \(n, 3, 16, 16\)"),
        ("unnormalised", "answers an image differently in a batch; expected independent images"),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_refused(weights, tiny_data, tmp_path, factory, message):
    model = getattr(importlib.import_module("my_networks"), factory)()
    save_file(model.state_dict(), weights)
    with pytest.raises(ExportError, match=f"my_networks:{factory} {message}"):
        export(arguments(weights, tiny_data, tmp_path, f"my_networks:{factory}"))
    assert not (tmp_path / "models").exists()


def test_the_command_line_takes_a_module_in_place_of_a_checkpoint(weights, tiny_data, tmp_path, monkeypatch, capsys):
    target = tmp_path / "models" / "mine" / "1"
    command = ["export", "--module", "my_networks:create", "--weights", str(weights), "--data", str(tiny_data)]
    monkeypatch.setattr("sys.argv", [*command, str(target)])
    main()
    assert f"{target}: max |torch - onnxruntime|" in capsys.readouterr().out
