"""Several processes train as one would."""

import json
import subprocess
import sys

import pytest
import torch

from training.models import create_model
from training.objectives import OBJECTIVES, Target
from training.processes import Processes
from training.recipes import RECIPES
from training.trainee import Trainee

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]

# batch norm in eval mode and no noise, so that a process's images do not see those of the other
STEP = """
import sys
import torch
from training.models import create_model
from training.objectives import OBJECTIVES, Target
from training.processes import joined
from training.recipes import RECIPES
from training.trainee import Trainee

with joined() as processes:
    torch.manual_seed(0)
    model = create_model("resnet18", width=2).eval()
    trainee = processes.parallel(Trainee(model, RECIPES["paper"]))
    batch = torch.load(sys.argv[1])
    images, attacked, labels = (part[processes.share(torch.arange(len(part)))] for part in batch)
    trainee(images, attacked, Target(labels, labels), OBJECTIVES["trades"]).loss.backward()
    if processes.is_first:
        torch.save({name: parameter.grad for name, parameter in model.named_parameters()}, sys.argv[2])
"""


def test_two_processes_have_the_gradients_of_one_on_the_same_batch(tmp_path, batch):
    images, labels = batch
    attacked = (images + 0.03).clamp(0, 1)
    torch.save((images, attacked, labels), tmp_path / "batch")
    (tmp_path / "step.py").write_text(STEP)
    command = [*TORCHRUN, tmp_path / "step.py", tmp_path / "batch", tmp_path / "gradients"]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    torch.manual_seed(0)
    model = create_model("resnet18", width=2).eval()
    Trainee(model, RECIPES["paper"])(images, attacked, Target(labels, labels), OBJECTIVES["trades"]).loss.backward()
    gradients = torch.load(tmp_path / "gradients")
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-5, rtol=0)


def test_processes_share_every_index_once():
    shares = [Processes(rank, 3).share(torch.arange(9)) for rank in range(3)]
    assert sorted(torch.cat(shares).tolist()) == list(range(9))


@pytest.mark.slow
def test_a_run_of_two_processes_is_complete_and_can_be_resumed(tiny_data, tmp_path):
    command = [*TORCHRUN, "-m", "training", "--data", str(tiny_data), "--out", str(tmp_path / "run")]
    options = ["--width", "4", "--held-out", "32", "--epochs", "2", "--awp", "0.005"]
    subprocess.run([*command, *options], check=True, timeout=600)
    history = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in history] == [1, 2]
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["processes"] == 2
    subprocess.run([*command, "--resume"], check=True, timeout=600)
