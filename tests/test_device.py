"""Where networks and images are placed, and in which layout."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from training.device import pick_device
from training.models import create_model


def layout(tensor):
    return "channels last" if tensor.is_contiguous(memory_format=torch.channels_last) else "contiguous"


@pytest.mark.parametrize(
    ("capability", "width", "expected"),
    [("AVX2", 4, "contiguous"), ("AVX2", 8, "channels last"), ("AVX512", 4, "channels last")],
)
def test_images_have_the_layout_of_the_network(monkeypatch, capability, width, expected):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    device, model = pick_device(), create_model("resnet18", width=width)
    device.place_model(model)
    assert layout(model.network.layer1[0].conv1.weight) == expected
    assert layout(device.place_images(torch.rand(2, 3, 8, 8), model)) == expected


def test_strided_convolutions_of_few_channels_train_without_corrupting_memory():
    code = """
import torch
from torch import nn
from training.device import pick_device
device, model = pick_device(), nn.Conv2d(4, 8, 1, stride=2)
device.place_model(model)
kept = []
for step in range(40):
    model(device.place_images(torch.rand(128, 4, 16, 16), model)).sum().backward()
    kept = [*kept[-20:], torch.rand(1000), torch.rand(37 * step + 5)]  # what a corrupted heap cannot give
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_network_without_convolutions_can_be_placed():
    device, model = pick_device(), nn.Linear(3, 2)
    device.place_model(model)
    assert device.place_images(torch.rand(2, 3, 4, 4), model).shape == (2, 3, 4, 4)
