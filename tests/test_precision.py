"""Files in fp16 and int8: their answers, their weights, and attack graphs of what is deployed."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from test_graphs import attack_graph, evidence_graph, with_random_statistics

from export import version
from export.errors import ParityError
from export.folding import fold_batch_norm
from export.graph import restricted, write_graphs
from export.precision import to_fp16, to_int8, with_deployed_weights
from export.version import Source, make_version
from fsr_serve.artifact import read_version
from fsr_serve.checks.probe import CROSS_ENTROPY, AttackGraph
from fsr_serve.session import OnnxModel
from training.attacks import cross_entropy
from training.data import load_images
from training.models import create_model

STORED = {"fp16": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.INT8}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return with_random_statistics(create_model("resnet18", width=8))


@pytest.fixture(scope="module")
def images():
    return torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=["fp16", "int8"])
def deployed(request, network, images, tmp_path_factory):
    """precision, folder with model.onnx, evidence.onnx and attack.onnx"""
    folder = tmp_path_factory.mktemp(request.param)
    folded = fold_batch_norm(network)
    evidence = evidence_graph(folded)
    converted = to_fp16(evidence) if request.param == "fp16" else to_int8(evidence, images.numpy())
    graphs = {"model.onnx": restricted(converted.graph, ["logits"]), "evidence.onnx": converted.graph}
    write_graphs({**graphs, "attack.onnx": with_deployed_weights(attack_graph(folded), converted.weights)}, folder)
    return request.param, folder


def test_logits_stay_near_those_of_torch(deployed, network, images):
    precision, folder = deployed
    expected = network(images).numpy()
    found = OnnxModel(folder / "model.onnx", device="cpu", threads=1).logits(images.numpy())
    assert np.abs(found - expected).max() < {"fp16": 0.002, "int8": 0.02}[precision] * np.abs(expected).max()


def test_all_convolution_weights_are_stored_as_deployed_in_all_graphs(deployed):
    precision, folder = deployed
    for name in ("model.onnx", "evidence.onnx", "attack.onnx"):
        tensors = onnx.load(folder / name, load_external_data=False).graph.initializer
        kernels = {tensor.data_type for tensor in tensors if len(tensor.dims) == 4 and min(tensor.dims[:2]) > 1}
        assert kernels == {STORED[precision]}, name


def test_the_files_together_weigh_little_more_than_the_weights(deployed, network):
    precision, folder = deployed
    values = sum(parameter.numel() for parameter in network.parameters())
    size = (folder / "weights.data").stat().st_size
    assert size < values * {"fp16": 2, "int8": 1}[precision] + 4096 * 120


def test_the_mask_is_computed_in_float32(network):
    graph = to_fp16(evidence_graph(network)).graph
    (sigmoid,) = [node for node in graph.graph.node if node.op_type == "Sigmoid"]
    inferred = onnx.shape_inference.infer_shapes(graph)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    assert types[sigmoid.output[0]] == onnx.TensorProto.FLOAT


def stored_weights(path):
    """The weights of a file as numbers, by the formulas of ONNX."""
    graph = onnx.load(path).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    if tensors and not any(tensor.dtype == np.int8 for tensor in tensors.values()):
        return [tensor.astype(np.float32) for tensor in tensors.values() if tensor.dtype == np.float16]
    weights = []
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors:
            values, scale, zero = (tensors[name] for name in node.input)
            by_row = (-1, *[1] * (values.ndim - 1))
            difference = values.astype(np.float32) - zero.reshape(by_row).astype(np.float32)
            weights.append(difference * scale.reshape(by_row))
    return weights


def rounded(network, stored):
    """The network with the stored weight next to each of its own."""
    folded = fold_batch_norm(network)
    for module in folded.modules():
        is_auxiliary = isinstance(module, torch.nn.Linear) and module is not folded.network.linear
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and not is_auxiliary:
            own = module.weight.data.numpy()
            fitting = [weight for weight in stored if weight.shape == own.shape]
            if not fitting:  # int8 leaves linear layers in float32
                continue
            nearest = min(fitting, key=lambda weight: np.abs(weight - own).mean())
            assert np.abs(nearest - own).max() <= np.abs(own).max() / 120
            module.weight.data = torch.from_numpy(nearest)
    return folded


def test_the_attack_graph_computes_with_the_deployed_weights(deployed, network, images):
    _, folder = deployed
    inputs, labels = images.clone().requires_grad_(), torch.arange(len(images)) % 10
    loss = cross_entropy(rounded(network, stored_weights(folder / "model.onnx"))(inputs), labels)
    (expected,) = torch.autograd.grad(loss.sum(), inputs)
    attack = AttackGraph(folder / "attack.onnx", device="cpu", threads=1)
    found = attack.step(images.numpy(), labels.numpy(), CROSS_ENTROPY)
    np.testing.assert_allclose(found.loss, loss.detach().numpy(), atol=1e-3)
    is_large = expected.abs() > 0.05 * expected.abs().amax(dim=(1, 2, 3), keepdim=True)
    assert (np.sign(found.gradient) == expected.sign().numpy())[is_large.numpy()].mean() > 0.999


class Colours(torch.nn.Module):
    """Sure of the colour that prevails."""

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 3, 3, padding=1)
        weight = torch.zeros(3, 3, 3, 3)
        for label, channel in enumerate((2, 1, 0)):
            weight[label, channel, 1, 1] = 20
        self.load_state_dict({"convolution.weight": weight, "convolution.bias": torch.zeros(3)})

    def forward(self, images):
        return self.convolution(images).mean(dim=(2, 3))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_version_says_its_precision_and_was_attacked_in_it(tiny_data, tmp_path, precision):
    images = load_images(str(tiny_data), "test")
    source = Source(Colours().eval(), images, images, "colours", 0, {}, ())
    parity = make_version(source, tmp_path / "colours" / "1", precision, has_attack_graph=True)
    assert parity.same_labels == 1
    assert parity.clean.flags.all()
    manifest = read_version(tmp_path / "colours" / "1").manifest
    assert manifest.precision == precision
    assert {accuracy.precision for accuracy in manifest.accuracies} == {precision}
    assert {accuracy.precision for accuracy in manifest.checkpoint_accuracies} == {"fp32"}


class Loud(torch.nn.Module):
    """Colours, by way of values beyond float16."""

    def __init__(self):
        super().__init__()
        self.colours, self.scale = Colours(), torch.nn.Conv2d(3, 3, 1, bias=False)
        self.scale.weight.data = 1e3 * torch.eye(3)[:, :, None, None]

    def forward(self, images):
        return self.colours(self.scale(self.scale(images)).relu() * 1e-3 * 1e-3)


def test_an_overflow_that_only_a_gpu_would_show_is_refused(tiny_data, tmp_path):
    images = load_images(str(tiny_data), "test")
    source = Source(Loud().eval(), images, images, "colours", 0, {}, ())
    with pytest.raises(ParityError, match=r"is beyond float16's 65504 on some of 64 attacked images"):
        make_version(source, tmp_path / "colours" / "1", "fp16", has_attack_graph=True)
    assert not (tmp_path / "colours").exists()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_attack_graph_that_leads_elsewhere_is_refused(tiny_data, tmp_path, monkeypatch, precision):
    """Through it a file would look robust that is not."""
    step = AttackGraph.step
    monkeypatch.setattr(AttackGraph, "step", lambda *given: step(*given)._replace(gradient=-step(*given).gradient))
    images = load_images(str(tiny_data), "test")
    source = Source(Colours().eval(), images, images, "colours", 0, {}, ())
    with pytest.raises(ParityError, match=r"attack.onnx: 0.00% of the large gradients have torch's sign"):
        make_version(source, tmp_path / "colours" / "1", precision, has_attack_graph=True)


def test_a_file_with_other_labels_than_torch_is_refused_and_not_left_behind(tiny_data, tmp_path, monkeypatch):
    def altered(model):
        folded = fold_batch_norm(model)
        folded.convolution.weight.data *= -1
        return folded

    monkeypatch.setattr(version, "fold_batch_norm", altered)
    images = load_images(str(tiny_data), "test")
    source = Source(Colours().eval(), images, images, "colours", 0, {}, ())
    with pytest.raises(ParityError, match=r"the fp16 file gives 0.00% of 512 images, .* at least 99.9%"):
        make_version(source, tmp_path / "colours" / "1", "fp16", has_attack_graph=True)
    assert not (tmp_path / "colours").exists()
