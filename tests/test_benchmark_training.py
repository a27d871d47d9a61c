"""The training benchmark compares what computes the same, and runs."""

import pytest
import torch

from benchmarks.training import Arguments, report
from benchmarks.training_steps import FSRAsWritten
from training.models import create_model


def test_fsr_as_written_computes_what_ours_does(batch):
    torch.manual_seed(0)
    model = create_model("resnet18", width=4).eval()
    expected = model.heads(batch[0])
    as_written = FSRAsWritten(model.network.layer4[1]).eval()
    model.network.layer4[1] = as_written
    with torch.no_grad():
        torch.testing.assert_close(model(batch[0]), expected.logits, atol=1e-5, rtol=1e-4)
    for found, ours in zip(as_written.heads, expected.fsr[0], strict=True):
        torch.testing.assert_close(found, ours.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_the_benchmark_runs_on_a_small_network():
    lines = list(report(Arguments(pairs=1, width=2, batch=4)))
    assert sum(line.startswith("| ") for line in lines) >= 6
