"""The rivals of Table 4 against their equations."""

import pytest
import torch
from torch.nn import functional as F

from training.models import create_model
from training.rivals import CAS, Choice, FeatureDenoising, LinearCIFS, NonlinearCIFS

CLASSES = 5


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def features():
    return torch.randn(4, 6, 3, 5, requires_grad=True)


def mask_of(module, features):
    """The mask that the module multiplied its features with, (n, c)."""
    return (module(features) / features).detach().flatten(2)


def test_feature_denoising_starts_as_the_identity(features):
    module = FeatureDenoising(6).train()
    torch.testing.assert_close(module(features), features)
    module(features).square().sum().backward()
    assert module.bn.weight.grad.abs().sum() > 0


def test_feature_denoising_is_a_non_local_mean_with_embedded_gaussian_weights(features):
    """Section 4.1 of arXiv 1812.03411, position by position."""
    module = FeatureDenoising(6).eval()
    torch.nn.init.normal_(module.bn.weight)
    torch.nn.init.normal_(module.theta.weight)
    torch.nn.init.normal_(module.phi.weight)
    with torch.no_grad():
        x, theta, phi = features.flatten(2), module.theta(features).flatten(2), module.phi(features).flatten(2)
        means = torch.empty_like(x)
        for n in range(4):
            for i in range(15):
                weights = torch.stack([(theta[n, :, i] @ phi[n, :, j] / 3**0.5).exp() for j in range(15)])
                means[n, :, i] = (weights / weights.sum() * x[n]).sum(dim=1)
        expected = features + module.bn(module.combine(means.view_as(features)))
        torch.testing.assert_close(module(features), expected)


def test_cas_masks_channels_by_the_weights_of_the_predicted_class(features):
    module = CAS(6, CLASSES).eval()
    predicted = module.probe(features.mean(dim=(2, 3))).argmax(dim=1)
    expected = module.probe.weight[predicted].detach()
    torch.testing.assert_close(mask_of(module, features), expected[:, :, None].expand(4, 6, 15))
    assert expected.min() < 0 < expected.max(), "signed, not normalised"


@pytest.mark.parametrize("build", [LinearCIFS, NonlinearCIFS])
def test_cifs_masks_channels_by_the_gradient_of_the_two_likeliest_classes(build, features):
    """The closed form equals differentiation: summed over the units of a channel, softmaxed over channels."""
    module = build(6, CLASSES).eval()
    detached = features.detach().requires_grad_()
    top = module.probe(detached.mean(dim=(2, 3))).topk(2, dim=1).values.sum()
    (gradient,) = torch.autograd.grad(top, detached)
    expected = gradient.sum(dim=(2, 3)).softmax(dim=1)
    found = mask_of(module, features)
    torch.testing.assert_close(found, expected[:, :, None].expand(4, 6, 15))
    assert 0 < found.min() < found.max() < 1
    torch.testing.assert_close(found[..., 0].sum(dim=1), torch.ones(4))


@pytest.mark.parametrize("build", [CAS, LinearCIFS, NonlinearCIFS])
def test_the_mask_passes_no_gradient_to_the_features(build, features):
    """The reason why plain PGD overstates CAS and CIFS: d(mask * f) / df is the mask alone."""
    module = build(6, CLASSES).eval()
    (gradient,) = torch.autograd.grad(module(features).sum(), features)
    torch.testing.assert_close(gradient.flatten(2), mask_of(module, features))


@pytest.mark.parametrize("build", [LinearCIFS, NonlinearCIFS])
def test_cifs_trains_its_probe_through_the_mask(build, features):
    """As differentiating twice does, the features detached."""
    module = build(6, CLASSES)
    upstream = torch.randn_like(features)
    (module(features) * upstream).sum().backward()
    found = {name: weights.grad.clone() for name, weights in module.named_parameters() if weights.grad is not None}
    module.zero_grad()
    detached = features.detach().requires_grad_()
    top = module.probe(detached.mean(dim=(2, 3))).topk(2, dim=1).values.sum()
    (gradient,) = torch.autograd.grad(top, detached, create_graph=True)
    mask = gradient.sum(dim=(2, 3)).softmax(dim=1)
    (features.detach() * mask[:, :, None, None] * upstream).sum().backward()
    for name, weights in module.named_parameters():
        expected = torch.zeros_like(weights) if weights.grad is None else weights.grad
        torch.testing.assert_close(found.get(name, torch.zeros_like(weights)), expected)
    assert any(gradient.any() for gradient in found.values())


def test_the_label_takes_the_place_of_the_likeliest_class_in_training():
    logits = torch.tensor([[3.0, 2.0, 1.0]] * 3)
    assert Choice(2)(logits).tolist() == [[0, 1]] * 3
    assert Choice(2).with_labels(logits, torch.tensor([2, 0, 1])).tolist() == [[2, 1], [0, 1], [1, 1]]
    assert Choice(1).with_labels(logits, torch.tensor([2, 0, 1])).tolist() == [[2], [0], [1]]


@pytest.mark.parametrize("rival", ["cas", "cifs"])
def test_labels_choose_the_mask_in_training_mode_only(rival, batch):
    images, labels = batch
    model = create_model("resnet18", fsr=False, width=4, rival=rival)
    others = (labels + 1) % 10
    with torch.no_grad():
        assert not torch.equal(model.train().heads(images, labels).logits, model.heads(images, others).logits)
        torch.testing.assert_close(model.eval().heads(images, labels).logits, model(images))


def test_rivals_stand_where_their_papers_put_them(batch):
    images, labels = batch
    counts = {"fd": 4, "cas": 2, "cifs": 2}
    for rival, count in counts.items():
        model = create_model("resnet18", fsr=False, width=4, rival=rival)
        kinds = [type(m) for m in model.modules() if isinstance(m, FeatureDenoising | CAS | LinearCIFS | NonlinearCIFS)]
        assert len(kinds) == count
        heads = model.heads(images, labels)
        assert [tuple(probe.shape) for probe in heads.probes] == [(8, 10)] * (0 if rival == "fd" else count)
        loss = F.cross_entropy(heads.logits, labels) + sum(F.cross_entropy(probe, labels) for probe in heads.probes)
        loss.backward()
        unused = [n for n, p in model.named_parameters() if p.grad is None]
        assert unused == []


@pytest.mark.parametrize(("name", "fsr"), [("resnet18", True), ("vgg16", False)])
def test_a_rival_refuses_what_it_does_not_fit(name, fsr):
    with pytest.raises(ValueError, match=f"rival is 'cas' with model '{name}' and fsr {fsr}; expected resnet18"):
        create_model(name, fsr=fsr, width=4, rival="cas")
