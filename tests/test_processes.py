"""Several processes train as one would."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from training.checkpoint import RunFolder
from training.models import create_model
from training.objectives import OBJECTIVES, Target
from training.processes import ALONE, Processes, joined
from training.recipes import RECIPES
from training.trainee import Trainee

TESTS = Path(__file__).parent


def gradients(processes):
    """Of TRADES + FSR on eight images; batch norm in eval mode and no noise, so that no image sees another."""
    torch.manual_seed(0)
    model = create_model("resnet18", width=2).eval()
    images, labels = torch.rand(8, 3, 16, 16), torch.arange(8)
    mine = processes.share(torch.arange(8))
    images, labels = images[mine], labels[mine]
    trainee = processes.parallel(Trainee(model, RECIPES["paper"]))
    attacked = (images + 0.03).clamp(0, 1)
    trainee(images, attacked, Target(labels, labels), OBJECTIVES["trades"]).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def gradients_of_one_of_several():
    with joined() as processes:
        return gradients(processes)


def test_two_processes_have_the_gradients_of_one_on_the_same_batch(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    given = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    # ended at once, as torch's threads may abort while an interpreter ends
    code = "from test_processes import *; gradients_of_one_of_several(); os._exit(0)"
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    second = {**os.environ, **given, "RANK": "1", "LOCAL_RANK": "1", "PYTHONPATH": paths}
    with subprocess.Popen([sys.executable, "-c", code], env=second) as process:
        for name, value in {**given, "RANK": "0", "LOCAL_RANK": "0"}.items():
            monkeypatch.setenv(name, value)
        found = gradients_of_one_of_several()
        assert process.wait(timeout=300) == 0
    expected = gradients(ALONE)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=0)


def test_processes_share_every_index_once():
    shares = [Processes(rank, 3).share(torch.arange(9)) for rank in range(3)]
    assert sorted(torch.cat(shares).tolist()) == list(range(9))


@pytest.mark.slow
def test_a_run_of_two_processes_is_complete(tiny_data, tmp_path):
    subprocess.run([*torchrun(tiny_data, tmp_path / "run"), *SMALL, "--awp", "0.005"], check=True, timeout=600)
    folder = RunFolder(tmp_path / "run")
    assert [line["epoch"] for line in folder.history()] == [1, 2, 3]
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_two_processes_stopped_and_resumed_come_to_the_same_result_and_one_goes_on_alone(tiny_data, tmp_path):
    whole, stopped = (torchrun(tiny_data, tmp_path / name) for name in ("whole", "stopped"))
    subprocess.run([*whole, *SMALL], check=True, timeout=600)
    with subprocess.Popen([*stopped, *SMALL]) as process:
        deadline = time.monotonic() + 600
        while not (tmp_path / "stopped" / "resume.safetensors").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
    assert len(RunFolder(tmp_path / "stopped").history()) < 3
    shutil.copytree(tmp_path / "stopped", tmp_path / "alone")
    subprocess.run([*stopped, "--resume"], check=True, timeout=600)
    expected, found = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "stopped"))
    for name, weights in expected.items():
        torch.testing.assert_close(found[name], weights)
    subprocess.run([*torchrun(tiny_data, tmp_path / "alone", processes=1), "--resume"], check=True, timeout=600)
    assert [line["epoch"] for line in RunFolder(tmp_path / "alone").history()] == [1, 2, 3]


SMALL = ["--width", "4", "--held-out", "32", "--epochs", "3"]


def torchrun(data, out, processes=2):
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*run, "-m", "training", "--data", str(data), "--out", str(out)]
