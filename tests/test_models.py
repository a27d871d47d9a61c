"""The networks: size, gradients, the mask of Eq. 2, and FSR in a foreign CNN."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from training.models import BACKBONES, FSR, Separation, create_model, insert_fsr
from training.objectives import adversarial_training

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
    adversarial_training(model.heads(images), labels, lambda_sep=1.0, lambda_rec=1.0).total.backward()
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
    monkeypatch.setattr("training.models.fsr.logistic_like", lambda scores: g1 - g2)
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
        logits = fsr.auxiliary_logits(features, 1 - mask, fsr(features))
        for found, part in zip(logits, (robust, nonrobust, recalibrated), strict=True):
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
        ({"name": "resnet19"}, "model is 'resnet19'; expected one of resnet18, vgg16, wide_resnet34_10"),
        ({"name": "resnet18", "num_classes": 1}, "num_classes is 1; expected 2 or more"),
        ({"name": "resnet18", "width": 0}, "width is 0; expected 1 or more"),
        ({"name": "resnet18", "tau": 0.0}, "tau is 0.0; expected a positive temperature"),
    ],
)
def test_create_model_names_the_bad_value_and_the_rule(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model(**arguments)
