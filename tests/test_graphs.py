"""Model, evidence and attack graph compute what torch computes, at any batch size."""

import numpy as np
import pytest
import torch
from float64_graphs import evaluator
from torch import nn

from export.attack_graph import attack_network, example_inputs
from export.errors import GraphError
from export.evidence import EvidenceNet
from export.folding import fold_batch_norm
from export.graph import restricted, to_onnx, write_graphs
from export.version import ATTACK_INPUTS, ATTACK_OUTPUTS
from fsr_serve.checks.probe import AttackGraph, Step
from fsr_serve.session import OnnxModel, start_onnxruntime
from training.attacks import cross_entropy, margin
from training.models import create_model, insert_fsr

BACKBONES = [
    ("resnet18", True),
    *(
        pytest.param(name, fsr, marks=pytest.mark.slow)
        for name, fsr in (
            ("resnet18", False),
            ("vgg16", False),
            ("vgg16", True),
            ("wide_resnet34_10", False),
            ("wide_resnet34_10", True),
        )
    ),
]


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    torch.manual_seed(0)


def with_random_statistics(model):
    """Batch norms as after training: their folding changes every weight."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return model.eval().requires_grad_(False)


def evidence_graph(model):
    network = EvidenceNet(model, (32, 32)).eval()
    return to_onnx(network, (torch.zeros(2, 3, 32, 32),), {"images": True}, network.output_names)


def attack_graph(model, classes=10):
    traced = attack_network(model, (32, 32), classes)
    return to_onnx(traced, example_inputs((32, 32), classes), ATTACK_INPUTS, ATTACK_OUTPUTS)


@pytest.mark.parametrize(("name", "fsr"), BACKBONES)
def test_all_graphs_agree_with_torch_at_any_batch_size(name, fsr, tmp_path):
    model = with_random_statistics(create_model(name, fsr=fsr, width=8))
    folded = fold_batch_norm(model)
    evidence = evidence_graph(folded)
    graphs = {"model.onnx": restricted(evidence, ["logits"]), "evidence.onnx": evidence}
    write_graphs({**graphs, "attack.onnx": attack_graph(folded)}, tmp_path)
    exported = OnnxModel(tmp_path / "model.onnx", device="cpu", threads=1)
    evidence_session = start_onnxruntime(tmp_path / "evidence.onnx", device="cpu", threads=1)
    attack = AttackGraph(tmp_path / "attack.onnx", device="cpu", threads=1)
    reference = EvidenceNet(model, (32, 32))
    for count in (1, 7, 64):
        random = torch.Generator().manual_seed(count)
        images, labels = torch.rand(count, 3, 32, 32, generator=random), torch.arange(count) % 10
        expected = model(images).numpy()
        assert np.abs(exported.logits(images.numpy()) - expected).max() < 1e-4
        assert np.abs(expected).max() > 0.01, "logits too small to tell"
        for found, tensor in zip(
            evidence_session.run(None, {"images": images.numpy()}), reference(images), strict=True
        ):
            assert np.abs(found - tensor.numpy()).max() < 1e-4
        assert_steps_agree(attack, model, images, labels)
    largest = sum(parameter.numel() for parameter in folded.parameters()) * 4
    tensors = len(list(folded.parameters()))
    assert (tmp_path / "weights.data").stat().st_size < 1.05 * largest + 4096 * tensors, "each weight is stored once"


def assert_steps_agree(attack, model, images, labels):
    for weights in ((1.0, 0.0), (0.0, 1.0), (0.3, 0.7)):
        inputs = images.clone().requires_grad_()
        logits = model(inputs)
        loss = weights[0] * cross_entropy(logits, labels) + weights[1] * margin(logits, labels)
        (gradient,) = torch.autograd.grad(loss.sum(), inputs)
        found = attack.step(images.numpy(), labels.numpy(), weights)
        assert np.abs(found.logits - logits.detach().numpy()).max() < 1e-4
        assert np.abs(found.loss - loss.detach().numpy()).max() < 1e-4
        is_large = gradient.abs() > 1e-3 * gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
        assert is_large.any()
        same_sign = (np.sign(found.gradient) == gradient.sign().numpy())[is_large.numpy()]
        # a ReLU whose input is zero but for rounding may fall to either side, and takes a few pixels with it
        assert same_sign.mean() > 0.999


@pytest.mark.parametrize(("name", "fsr"), BACKBONES)
def test_without_rounding_every_large_gradient_has_torchs_sign(name, fsr):
    """What float32 leaves open: the same graph in float64, by ONNX's reference implementation."""
    folded = fold_batch_norm(with_random_statistics(create_model(name, fsr=fsr, width=4)))
    graph = evaluator(attack_graph(folded))
    random = torch.Generator().manual_seed(0)
    images, labels = torch.rand(3, 3, 32, 32, generator=random).double(), torch.tensor([0, 7, 3])
    for weights in ((1.0, 0.0), (0.0, 1.0)):
        inputs = images.clone().requires_grad_()
        logits = folded.double()(inputs)
        loss = weights[0] * cross_entropy(logits, labels) + weights[1] * margin(logits, labels)
        (gradient,) = torch.autograd.grad(loss.sum(), inputs)
        given = {"images": images.numpy(), "labels": labels.numpy(), "loss_weights": np.array(weights)}
        found = Step(*graph.run(None, given))
        np.testing.assert_allclose(found.logits, logits.detach().numpy(), atol=1e-9)
        is_large = gradient.abs() > 1e-3 * gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
        assert is_large.any()
        assert (np.sign(found.gradient) == gradient.sign().numpy())[is_large.numpy()].all()


class Pooled(nn.Module):
    """A user's own network, with every kind of pooling, a grouped, a dilated and a strided convolution."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.MaxPool2d(3, 2, padding=1))
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, groups=4), nn.SiLU(), nn.AvgPool2d(2))
        self.third = nn.Sequential(nn.Conv2d(8, 12, 3, 2, dilation=2, padding=2), nn.Tanh(), nn.AdaptiveAvgPool2d(2))
        self.linear = nn.Linear(48, 5)

    def forward(self, images):
        return self.linear(self.third(self.second(self.first(images))).flatten(1))


def test_a_users_own_network_has_an_attack_graph_with_fsr_and_without(tmp_path):
    for model in (Pooled(), insert_fsr(Pooled(), ["second"], 5)):
        with_random_statistics(model)
        write_graphs({"attack.onnx": attack_graph(model, classes=5)}, tmp_path)
        attack = AttackGraph(tmp_path / "attack.onnx", device="cpu", threads=1)
        assert_steps_agree(attack, model, torch.rand(5, 3, 32, 32), torch.randint(5, (5,)))


class Sampled(Pooled):
    def forward(self, images):
        grid = nn.functional.affine_grid(torch.eye(2, 3)[None], (1, 3, 32, 32), align_corners=False)
        return super().forward(nn.functional.grid_sample(images, grid.expand(len(images), -1, -1, -1)))


class Uneven(Pooled):
    def __init__(self):
        super().__init__()
        self.third[2] = nn.AdaptiveAvgPool2d(3)
        self.linear = nn.Linear(108, 5)


@pytest.mark.parametrize(("network", "operator"), [(Sampled, "grid_sampler_2d_backward"), (Uneven, "adaptive_avg")])
def test_an_operator_that_cannot_be_differentiated_is_named(network, operator):
    with pytest.raises(GraphError, match=rf"operator aten.*{operator}.*export without an attack graph"):
        attack_network(network().eval().requires_grad_(False), (32, 32), 5)


def test_the_maps_of_a_module_average_to_its_auxiliary_logits():
    model = with_random_statistics(create_model("resnet18", width=8))
    network = EvidenceNet(model, (32, 32))
    images = torch.rand(3, 3, 32, 32)
    found = dict(zip(network.output_names, network(images), strict=True))
    (heads,) = model.heads(images).fsr
    for name in ("robust", "nonrobust", "recalibrated"):
        torch.testing.assert_close(found[f"{name}_map_0"].mean(dim=(2, 3)), getattr(heads, name))
        torch.testing.assert_close(found[f"{name}_logits_0"], getattr(heads, name))
    assert ((found["mask_mass_0"] > 0) & (found["mask_mass_0"] < 1)).all()
    torch.testing.assert_close(model.network.linear(found["features"]), found["logits"])


def test_folding_keeps_the_function_and_a_network_it_cannot_follow():
    model = with_random_statistics(create_model("wide_resnet34_10", width=4))
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(fold_batch_norm(model)(images), model(images), atol=1e-5, rtol=1e-5)

    by_batch = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    torch.testing.assert_close(fold_batch_norm(by_batch)(images), by_batch(images))

    class Branching(nn.Sequential):
        def forward(self, images):
            return super().forward(images if images.sum() > 0 else -images)

    branching = with_random_statistics(Branching(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    assert isinstance(fold_batch_norm(branching)[1], nn.BatchNorm2d)
