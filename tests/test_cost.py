"""What networks cost: counts against the paper and by hand, times that take turns."""

import pytest
import torch
from torch import nn

from training.checkpoint import ModelConfig
from training.device import Device
from training.evaluation import cost_command
from training.evaluation.cost import TimedNetwork, size_of, size_of_network
from training.evaluation.cost_command import Arguments, CostError, report
from training.evaluation.paper import Asked, paper_figures
from training.evaluation.training_step import TrainingStep
from training.models import create_model

CPU = Device(torch.device("cpu"), torch.float32)


def test_the_count_of_a_known_network_is_that_by_hand():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 32 * 32, 10))
    convolution, linear = 3 * 8 * 9 * 32 * 32, 8 * 32 * 32 * 10
    assert size_of(network) == (3 * 8 * 9 + 8 + linear + 10, 2 * (convolution + linear))


@pytest.mark.parametrize("backbone", ["resnet18", "vgg16"])
@pytest.mark.parametrize("method", ["vanilla", "FSR"])
def test_sizes_are_those_of_table_7(backbone, method):
    paper = paper_figures()
    parameters, flops = (
        float(paper[Asked("7", "cifar10", backbone, method, measure)]) for measure in ("params_millions", "flops_giga")
    )
    found = size_of_network(backbone, fsr=method == "FSR")
    assert found.parameters / 1e6 == pytest.approx(parameters, abs=0.01)
    assert found.flops / 1e9 == pytest.approx(flops, rel=0.005)


def test_counting_a_network_that_computes_nothing_is_counting_the_network():
    assert size_of_network("resnet18", fsr=True, width=8) == size_of(create_model("resnet18", width=8))


def test_counting_leaves_the_network_in_its_mode():
    model = create_model("resnet18", width=2).train()
    size_of(model)
    assert model.training


@pytest.mark.parametrize("call", ["forward_pass", "pgd20", "training_step"])
@pytest.mark.parametrize("fsr", [False, True])
def test_everything_that_is_timed_runs(call, fsr):
    getattr(TimedNetwork("resnet18", fsr=fsr, width=8, device=CPU), call)(2)()


def test_a_training_step_learns():
    step = TrainingStep(ModelConfig(num_classes=10, width=8), 2, CPU)
    before = [parameter.detach().clone() for parameter in step.state.model.parameters()]
    step.take()
    assert not all(torch.equal(old, new) for old, new in zip(before, step.state.model.parameters(), strict=True))


def test_sizes_are_reported_beside_the_papers_and_at_the_width_asked_for():
    text = "\n".join(report(Arguments(model=("resnet18",), width=16, times=False)))
    assert "| resnet18 | 64 | vanilla | 11.17 | 11.17 | 1.1108 | 1.1133 |" in text
    assert "| resnet18 | 64 | FSR | 12.43 | 12.43 |" in text
    assert text.count("| resnet18 | 16 |") == 2


@pytest.mark.parametrize("name", ["batch", "pairs", "width", "threads"])
def test_counts_below_one_are_refused_by_name(name):
    with pytest.raises(CostError, match=f"{name} is 0; expected 1 or more"):
        next(report(Arguments(**{name: 0})))


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CostError, match="device is cuda, and torch finds none here; choose --device cpu"):
        cost_command.chosen("cuda")


def test_the_ratio_of_section_4_4_is_given_where_the_paper_has_one():
    assert cost_command.paper_ratio("resnet18", "train_epoch_seconds") == "1.053"
    assert cost_command.paper_ratio("vgg16", "train_epoch_seconds") == "-"


@pytest.mark.slow
def test_times_and_peaks_are_reported_for_every_row():
    lines = list(report(Arguments(model=("resnet18",), width=8, batch=2, pairs=1)))
    rows = [line.split("|") for line in lines if line.startswith("| resnet18 |") and "(" in line]
    assert [row[2].strip() for row in rows] == ["forward pass"] * 2 + ["training step, PGD-10", "PGD-20"]
    assert all(int(row[-2].replace(",", "")) > 50 for row in rows)
