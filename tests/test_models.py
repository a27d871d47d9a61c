"""The networks: size, gradients, the mask of Eq. 2, and FSR in a foreign CNN."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from training.models import BACKBONES, FSR, Separation, create_model, insert_fsr
from training.models.masks import BinarySeparation, GreedyMask, RandomMask
from training.models.separated import recorded
from training.objectives import OBJECTIVES, Target
from training.recipes import RECIPES
from training.trainee import Trainee

# Table 7 of the paper: parameters in millions, FLOPs in billions on one 32x32 image
TABLE_7 = {
    ("resnet18", False): (11.17, 1.1133),
    ("resnet18", True): (12.43, 1.1535),
    ("vgg16", False): (15.25, 0.6299),
    ("vgg16", True): (16.52, 0.6701),
}


@pytest.mark.parametrize(("name", "fsr"), TABLE_7)
def test_parameters_and_flops_are_those_of_table_7(name, fsr):
    model = create_model(name, fsr=fsr).eval()
    parameters, flops = TABLE_7[name, fsr]
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(parameters, abs=0.015)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() / 1e9 == pytest.approx(flops, rel=0.01)


@pytest.mark.parametrize("fsr", [False, True])
@pytest.mark.parametrize("name", BACKBONES)
def test_every_parameter_receives_a_gradient(name, fsr, batch):
    images, labels = batch
    model = create_model(name, fsr=fsr, width=4).train()
    Trainee(model, RECIPES["paper"])(images, images, Target(labels, labels), OBJECTIVES["at"]).loss.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("name", BACKBONES)
def test_fsr_stands_where_the_paper_puts_it(name):
    model = create_model(name, width=4)
    (position,) = [name for name, module in model.named_modules() if isinstance(module, FSR)]
    assert position == f"network.{BACKBONES[name].fsr_after}.1"


def eq_2(r, g1, g2, tau):
    """The mask m of Eq. 2 as it is written there, in double precision."""
    p = torch.sigmoid(r.double())
    scores = torch.stack([(p.log() + g1) / tau, ((1 - p).log() + g2) / tau])
    return scores.softmax(dim=0)[0]


class Given(nn.Module):
    """Stands in for the Separation Net: its features are the robustness map."""

    def forward(self, features):
        return features


def separation_without_net(tau):
    separation = Separation(channels=1, tau=tau)
    separation.score = Given()
    return separation


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_eval_mask_equals_eq_2_with_both_noises_fixed(tau):
    r = torch.linspace(-8, 8, 1001)
    fixed = -torch.log(-torch.log(torch.tensor(0.5, dtype=torch.double)))
    negative_mask = separation_without_net(tau).eval()(r)
    torch.testing.assert_close(1 - negative_mask.double(), eq_2(r, fixed, fixed, tau), atol=1e-6, rtol=0)


@pytest.mark.parametrize("noise", [(0.3, -1.2), (2.0, 0.1)])
def test_training_mask_with_given_noise_equals_eq_2(monkeypatch, noise):
    """One logistic draw does what two Gumbel draws do: it stands for their difference."""
    g1, g2 = noise
    monkeypatch.setattr("training.models.masks.logistic_like", lambda scores: g1 - g2)
    r = torch.linspace(-3, 3, 301, dtype=torch.double)
    negative_mask = separation_without_net(0.1).train()(r)
    torch.testing.assert_close(1 - negative_mask, eq_2(r, g1, g2, 0.1), atol=1e-9, rtol=0)


@pytest.mark.parametrize("r", [-1.0, 0.0, 0.7])
def test_training_mask_is_distributed_as_eq_2(r):
    from scipy.stats import ks_2samp

    torch.manual_seed(0)
    scores = torch.full((100_000,), r)
    g1, g2 = (-torch.log(-torch.log(torch.rand(len(scores), dtype=torch.double))) for _ in range(2))
    ours = 1 - separation_without_net(1.0).train()(scores)
    assert ks_2samp(ours.numpy(), eq_2(scores, g1, g2, 1.0).numpy()).pvalue > 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_training_mask_is_finite_in_half_precision(dtype):
    torch.manual_seed(0)
    scores = torch.randn(1_000_000, dtype=dtype, requires_grad=True)
    mask = separation_without_net(0.1).train()(scores)
    mask.sum().backward()
    assert mask.isfinite().all()
    assert scores.grad.isfinite().all()


def test_mask_is_random_in_training_and_fixed_in_eval(batch):
    images, _ = batch
    model = create_model("resnet18", width=4)
    with torch.no_grad():
        assert not torch.equal(model.train()(images), model(images))
        assert torch.equal(model.eval()(images), model(images))


def test_output_is_robust_plus_recalibrated_feature():
    """f~ = m+ f + (m- f + m- R(m- f)), section 3.2, and the auxiliary head sees each of the parts."""
    torch.manual_seed(0)
    fsr = FSR(channels=6, num_classes=4, tau=0.5).eval()
    features = torch.randn(3, 6, 5, 7)
    with torch.no_grad():
        mask = torch.sigmoid(fsr.separation.score(features) / 0.5)
        robust, nonrobust = mask * features, (1 - mask) * features
        recalibrated = nonrobust + (1 - mask) * fsr.recalibration(nonrobust)
        torch.testing.assert_close(fsr(features), robust + recalibrated)
        with recorded(fsr) as passes:
            fsr(features)
        for found, part in zip(passes[0].logits, (robust, nonrobust, recalibrated), strict=True):
            torch.testing.assert_close(found, fsr.auxiliary(part.mean(dim=(2, 3))))


class ForeignNet(nn.Module):
    """A CNN that this project does not define: nested names, odd channels, another image size."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 10, 5, stride=2)
        self.body = nn.ModuleDict(
            {"first": nn.Conv2d(10, 14, 3), "second": nn.Sequential(nn.ReLU(), nn.Conv2d(14, 9, 3))}
        )
        self.head = nn.Linear(9, 7)

    def forward(self, images):
        features = self.body["second"](self.body["first"](self.stem(images)))
        return self.head(features.amax(dim=(2, 3)))


def test_fsr_plugs_into_a_foreign_network_at_several_places():
    model = insert_fsr(ForeignNet(), after=["stem", "body.second"], num_classes=7, image_shape=(3, 41, 23))
    heads = model.train().heads(torch.rand(5, 3, 41, 23))
    assert heads.logits.shape == (5, 7)
    assert [tuple(head.shape) for fsr in heads.fsr for head in fsr] == [(5, 7)] * 6
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 7), "any image size works afterwards"
    heads.fsr[0].recalibrated.sum().backward()
    assert model.network.stem[1].recalibration[0].weight.grad.abs().sum() > 0


def test_fsr_leaves_frozen_parts_of_a_network_frozen():
    network = ForeignNet().train()
    network.body["first"].eval()
    insert_fsr(network, after=["body.second"], num_classes=7)
    assert not network.body["first"].training
    assert network.stem.training


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (["bodyy"], "after has 'bodyy'; expected names of submodules, such as 'stem', 'body', 'head'"),
        (["stem", "stem"], r"after is \['stem', 'stem'\]; expected each name once"),
        (["head"], r"submodule 'head' yields \(1, 7\); FSR needs features of shape \(n, c, h, w\)"),
    ],
)
def test_fsr_refuses_a_place_it_cannot_follow(after, message):
    with pytest.raises(ValueError, match=message):
        insert_fsr(ForeignNet(), after=after, num_classes=7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet19"}, "model is 'resnet19'; expected one of resnet18, resnet50, vgg16, wide_resnet34_10"),
        ({"name": "resnet18", "num_classes": 1}, "num_classes is 1; expected 2 or more"),
        ({"name": "resnet18", "width": 0}, "width is 0; expected 1 or more"),
        ({"name": "resnet18", "tau": 0.0}, "tau is 0.0; expected a positive temperature"),
    ],
)
def test_create_model_names_the_bad_value_and_the_rule(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model(**arguments)


MASK_VALUES = {"gumbel": None, "binary": {0.0, 1.0}, "random": {0.0, 1.0}, "greedy": {0.0, 1.0}, "none": {1.0}}


@pytest.mark.parametrize("mask", MASK_VALUES)
def test_every_mask_of_tables_a6_and_a7_has_its_range_and_stays_fixed_in_eval(mask, batch):
    torch.manual_seed(0)
    model = create_model("resnet18", width=4, mask=mask)
    (fsr,) = (module for module in model.modules() if isinstance(module, FSR))
    features = torch.randn(4, 32, 4, 4)
    found = fsr.train().separation(features)
    assert found.shape == features.shape
    if MASK_VALUES[mask] is not None:
        assert set(found.unique().tolist()) == MASK_VALUES[mask]
    with torch.no_grad():
        assert torch.equal(model.eval()(batch[0]), model(batch[0]))


def test_the_binary_mask_is_eq_8():
    separation = BinarySeparation(channels=1)
    separation.score = Given()
    r = torch.tensor([-2.0, -1e-6, 0.0, 3.0])
    assert (1 - separation(r)).tolist() == (torch.sigmoid(r) >= 0.5).float().tolist()


def test_the_random_mask_takes_half_and_its_mean_in_eval():
    torch.manual_seed(0)
    features = torch.zeros(100_000)
    assert RandomMask().train()(features).mean().item() == pytest.approx(0.5, abs=0.01)
    assert RandomMask().eval()(features).unique().tolist() == [0.5]


def test_the_greedy_mask_takes_the_lowest_activations_of_each_image():
    features = torch.stack([torch.arange(8.0), 100 + torch.arange(8.0)]).view(2, 2, 2, 2)
    assert GreedyMask()(features).flatten(1).tolist() == [[1.0] * 4 + [0.0] * 4] * 2


def test_without_separation_all_of_the_features_is_recalibrated():
    fsr = FSR(6, 4, 0.1, mask="none").eval()
    features = torch.randn(3, 6, 5, 7)
    torch.testing.assert_close(fsr(features), features + fsr.recalibration(features))


def test_without_recalibration_the_robust_feature_is_passed_on_alone():
    fsr = FSR(6, 4, 0.5, recalibration=False).eval()
    features = torch.randn(3, 6, 5, 7)
    torch.testing.assert_close(fsr(features), features * torch.sigmoid(fsr.separation.score(features) / 0.5))


@pytest.mark.parametrize("after", [["layer1"], ["layer2"], ["layer3"], ["layer3", "layer4"]])
def test_fsr_takes_the_positions_of_table_a4(after, batch):
    model = create_model("resnet18", width=4, after=after)
    assert [n for n, m in model.named_modules() if isinstance(m, FSR)] == [f"network.{name}.1" for name in after]
    assert len(model.heads(batch[0]).fsr) == len(after)


def test_resnet50_has_the_published_number_of_parameters():
    """23.52 M as in the usual CIFAR variant: 25.557 M of torchvision's, less its 1000-class head and 7x7 stem."""
    model = create_model("resnet50", fsr=False)
    stem, head = (7 * 7 - 3 * 3) * 3 * 64, 2049 * (1000 - 10)
    assert sum(p.numel() for p in model.parameters()) == 25_557_032 - stem - head


def test_silu_replaces_every_relu_of_the_backbone_and_keeps_the_names_of_weights(batch):
    for name in BACKBONES:
        relu, silu = (create_model(name, width=4, fsr=False, activation=which) for which in ("relu", "silu"))
        assert not any(isinstance(module, nn.ReLU) for module in silu.modules())
        silu.load_state_dict(relu.state_dict())
        assert not torch.equal(relu.eval()(batch[0]), silu.eval()(batch[0]))
