"""FSR's features looked at one by one: passed on, compared with neighbours, drawn as evidence; and its masks."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from training.attacks import pgd
from training.evaluation import nearest_neighbours
from training.evaluation.maps import evidence_maps, grad_cam, maps_of
from training.evaluation.mask_statistics import BINS, mask_statistics
from training.evaluation.nearest_neighbours import knn_answers, votes
from training.evaluation.passed_on import passing_on
from training.models import FSR, create_model
from training.models.separated import SYMBOLS, Separated, feature_names, recorded


@pytest.fixture(scope="module")
def model():
    """A random ResNet-18 with FSR behind layer4 whose masks take all values."""
    torch.manual_seed(0)
    model = create_model("resnet18", width=4)
    with torch.no_grad():
        model.network.layer4[1].separation.score[-1].weight *= 3
    return model.eval()


def by_hand(model, images):
    """f and the paper's four features, section 3, and logits made of any of them."""
    net = model.network
    features = net.layer3(net.layer2(net.layer1(net.activation(net.bn1(net.conv1(images))))))
    features, fsr = net.layer4[0](features), net.layer4[1]
    mask = torch.sigmoid(fsr.separation.score(features) / 0.1)
    nonrobust = (1 - mask) * features
    recalibrated = nonrobust + (1 - mask) * fsr.recalibration(nonrobust)
    parts = {"robust": mask * features, "nonrobust": nonrobust, "recalibrated": recalibrated}
    return features, parts | {"output": parts["robust"] + recalibrated}


@pytest.mark.parametrize("name", SYMBOLS)
def test_the_rest_of_the_network_sees_the_feature_passed_on(model, batch, name):
    images, _ = batch
    _, parts = by_hand(model, images)
    expected = model.network.linear(parts[name].mean(dim=(2, 3)))
    torch.testing.assert_close(passing_on(model, name)(images), expected, atol=1e-5, rtol=1e-4)


def test_passing_on_the_output_changes_nothing_and_other_features_do(model, batch):
    images, _ = batch
    assert torch.equal(passing_on(model, "output")(images), model(images))
    for name in ("robust", "nonrobust", "recalibrated"):
        assert not torch.allclose(passing_on(model, name)(images), model(images), atol=1e-3)


@pytest.mark.parametrize("name", SYMBOLS)
def test_a_network_that_passes_on_can_be_attacked_and_asked_for_its_heads(model, batch, name):
    images, labels = batch
    passing = passing_on(model, name)
    attacked = pgd(passing, images, labels, epsilon=8 / 255, step_size=2 / 255, steps=3, random_start=False)
    loss, attacked_loss = (F.cross_entropy(passing(x), labels) for x in (images, attacked))
    assert attacked_loss > loss
    heads, own = passing.heads(images), model.heads(images)
    assert torch.equal(heads.logits, passing(images))
    for passed, expected in zip(heads.fsr[0], own.fsr[0], strict=True):
        assert torch.equal(passed, expected)


def test_passing_on_leaves_the_model_as_it_was(model, batch):
    images, _ = batch
    before, state = model(images), {name: value.clone() for name, value in model.state_dict().items()}
    passing = passing_on(model, "robust")
    with torch.no_grad():
        for parameter in passing.parameters():
            parameter.zero_()
    passing.train()
    assert torch.equal(model(images), before)
    assert not model.training
    assert isinstance(model.network.layer4[1], FSR)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_every_module_passes_on(batch):
    images, _ = batch
    torch.manual_seed(0)
    model = create_model("resnet18", width=4, after=("layer3", "layer4")).eval()
    assert torch.equal(passing_on(model, "output")(images), model(images))
    with recorded(model) as passes:
        model(images)
    assert [part.features.shape[1] for part in passes] == [16, 32]
    with torch.no_grad():
        features = model.network.layer4[0](passes[0].nonrobust)
        mask = model.network.layer4[1].separation(features)
        expected = model.network.linear((mask * features).mean(dim=(2, 3)))
        torch.testing.assert_close(passing_on(model, "nonrobust")(images), expected)


@pytest.mark.parametrize(
    ("choices", "name", "message"),
    [
        ({"fsr": False}, "robust", "the model has no FSR module; expected one whose features can be passed on"),
        ({"recalibration": False}, "recalibrated", r"features is 'recalibrated' \(f~-\); .*layer4.1 has only 'robust'"),
        ({"mask": "none"}, "robust", r"features is 'robust' \(f\+\); .*layer4.1 has only 'nonrobust', 'recal"),
    ],
)
def test_features_that_are_not_there_are_not_passed_on(choices, name, message):
    with pytest.raises(ValueError, match=message):
        passing_on(create_model("resnet18", width=4, **choices), name)


def test_recorded_features_add_up_and_equal_the_papers(model, batch):
    images, _ = batch
    with recorded(model) as passes, torch.no_grad():
        model(images)
    (separated,) = passes
    features, parts = by_hand(model, images)
    assert feature_names(separated.module) == tuple(SYMBOLS)
    torch.testing.assert_close(separated.robust + separated.nonrobust, features)
    torch.testing.assert_close(separated.robust + separated.recalibrated, separated.output)
    for name, part in parts.items():
        torch.testing.assert_close(separated.named(name), part, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.sigmoid(-separated.robustness_map / 0.1), separated.nonrobust_mask)
    model(images)
    assert len(passes) == 1


def at_cosines(*cosines):
    """Vectors of various lengths with these cosines to (1, 0)."""
    return torch.tensor([(c * n, math.sqrt(1 - c * c) * n) for n, c in enumerate(cosines, start=1)])


def test_near_neighbours_outvote_many():
    neighbours, labels = at_cosines(0.8, 0.9, 0.8, -1), torch.tensor([1, 0, 1, 2])
    query = torch.tensor([[5.0, 0.0]])
    # exp(0.9 / 0.07) is 4.2 times exp(0.8 / 0.07), but exp(0.9) only 1.1 times exp(0.8)
    for gamma, expected in ((0.07, 0), (1.0, 1)):
        answers = knn_answers(query, neighbours, labels, ks=(1, 3), classes=3, gamma=gamma)
        assert (answers[1].tolist(), answers[3].tolist()) == ([0], [expected])
    assert votes(torch.tensor([[0.9, 0.8, 0.8]]), torch.tensor([[0, 1, 1]]), 3, 0.5).tolist() == [
        pytest.approx([math.exp(1.8), 2 * math.exp(1.6), 0])
    ]


@pytest.mark.parametrize("held", [1, 300, 2**24])
def test_answers_equal_the_papers_formula_written_out_however_many_are_held(held, monkeypatch):
    monkeypatch.setattr(nearest_neighbours, "CHUNK_COSINES", held)
    random = np.random.default_rng(0)
    queries, neighbours = random.normal(size=(40, 6)), random.normal(size=(100, 6))
    labels = random.integers(4, size=100)
    expected = []
    for query in queries:
        cosines = neighbours @ query / np.linalg.norm(neighbours, axis=1) / np.linalg.norm(query)
        nearest = np.argsort(-cosines)[:7]
        scores = [sum(np.exp(cosines[i] / 0.07) for i in nearest if labels[i] == c) for c in range(4)]
        expected.append(int(np.argmax(scores)))
    answers = knn_answers(*map(torch.from_numpy, (queries, neighbours, labels)), ks=(7, 1), classes=4)
    assert answers[7].tolist() == expected


@pytest.mark.parametrize("k", [0, 3])
def test_as_many_neighbours_as_there_are_can_be_asked(k):
    with pytest.raises(ValueError, match=f"k is {k}; expected 1 to 2, the number of neighbours"):
        knn_answers(torch.ones(1, 2), torch.ones(2, 2), torch.zeros(2).long(), ks=(k,), classes=2)


def test_evidence_averages_to_the_logits(batch):
    head, features = nn.Linear(3, 5), batch[0]
    maps = evidence_maps(features, head)
    assert maps.shape == (8, 5, 32, 32)
    torch.testing.assert_close(maps.mean(dim=(2, 3)), head(features.mean(dim=(2, 3))))


class LinearHead(nn.Module):
    """A convolution, global averaging and a linear head, with a pooling in between that is not to be taken."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 3, stride=4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(6, 10, bias=False)

    def forward(self, images):
        return self.head(self.pool(self.convolution(images)).flatten(1))


def test_grad_cam_before_a_linear_head_is_the_positive_evidence(batch):
    images, classes = batch
    network = LinearHead().train()
    with torch.no_grad():
        own = evidence_maps(network.convolution(images), network.head)[torch.arange(8), classes]
    torch.testing.assert_close(grad_cam(network, images, classes), F.relu(own) / (8 * 8))
    assert network.training


def test_grad_cam_needs_features():
    with pytest.raises(ValueError, match="no module of the network yields features"):
        grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.rand(1, 3, 2, 2), torch.zeros(1).long())


@pytest.mark.parametrize(("name", "side"), [("vgg16", 2), ("wide_resnet34_10", 8)])
def test_grad_cam_finds_the_last_features_of_every_backbone(name, side, batch):
    images, classes = batch
    torch.manual_seed(0)
    assert grad_cam(create_model(name, width=4), images[:2], classes[:2]).shape == (2, side, side)


def test_maps_explain_the_auxiliary_heads_logits_of_the_asked_class(model, batch):
    images, classes = batch
    maps = maps_of(model, images, classes)
    (heads,) = model.heads(images).fsr
    for name in ("robust", "nonrobust", "recalibrated"):
        logits = getattr(heads, name).gather(1, classes[:, None]).squeeze(1)
        torch.testing.assert_close(maps.evidence[name].mean(dim=(1, 2)), logits, atol=1e-5, rtol=1e-4)
    assert maps.grad_cam.shape == maps.evidence["output"].shape == (8, 4, 4)
    assert (maps.grad_cam >= 0).all()
    assert torch.equal(maps.answers, model(images).argmax(dim=1))


def separated(mask, features, scores):
    """A pass over one image of two channels, with these units each."""
    mask, features, scores = (torch.tensor(x).view(1, 2, 1, 2) for x in (mask, features, scores))
    return Separated(FSR(2, 2, 0.1), features, 1 - mask, features, scores)


def test_mask_statistics_by_hand():
    one = separated([0.0, 0.25, 0.75, 1.0], [1.0, -2.0, 4.0, 4.0], [-2.0, -0.5, 0.5, 1.5])
    statistics = mask_statistics(one)
    counts = {index: int(count) for index, count in enumerate(statistics.counts) if count}
    assert counts == {0: 1, BINS // 4: 1, BINS * 3 // 4: 1, BINS - 1: 1}
    assert (statistics.units, statistics.nonrobust_share, statistics.saturated_share) == (4, 0.5, 0.5)
    assert statistics.channel_mass.tolist() == pytest.approx([(1 + 1.5) / 3, 1 / 8])
    assert statistics.mass == pytest.approx((1 + 1.5 + 1) / 11)
    other = mask_statistics(separated([1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0], [3.0, 3.0, 3.0, 0.0]))
    both = statistics + other
    assert (both.units, both.nonrobust_share, both.saturated) == (8, 0.25, 5)
    assert both.channel_mass.tolist() == pytest.approx([2.5 / 4, 1 / 8])
    assert other.channel_mass.isnan().tolist() == [False, True]


def test_a_mask_without_scores_is_never_saturated(batch):
    model = create_model("resnet18", width=4, mask="greedy").eval()
    with recorded(model) as passes, torch.no_grad():
        model(batch[0])
    assert mask_statistics(passes[0]).saturated_share is None
