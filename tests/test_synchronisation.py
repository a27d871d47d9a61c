"""Within an epoch nothing waits for the device.

It runs on torch's meta device, whose tensors have no values to wait for. What reads a value there fails by itself
(float, nonzero, a boolean index); copies that wait are watched for.
"""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from training import state as state_module
from training.batches import Data
from training.checkpoint import ModelConfig
from training.data import ImageData
from training.device import Device
from training.processes import ALONE, Processes
from training.progress import Underway
from training.recipes import RECIPES
from training.state import State
from training.train import train_epoch

FAR = torch.device("meta")
CLASSES = ("a", "b", "c")


@pytest.fixture(autouse=True)
def without_autocast(monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)  # torch has none to ask about on "meta"


class FarDevice(Device):
    """A device whose values never arrive."""

    def autocast(self):
        return nullcontext()


@dataclass(frozen=True)
class UntilTheEnd(Processes):
    """Takes the means at the end of the epoch for known."""

    def mean(self, tensor):
        return torch.zeros(()) if tensor.dim() == 0 else tensor


class NoWaitingCopies(TorchDispatchMode):
    """Refuses copies between host and device that are not told to go on meanwhile."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        places = {tensor.device.type for tensor in tensors if tensor.dim() > 0}
        places |= {torch.device(kwargs["device"]).type} if tensors and kwargs.get("device") else set()
        is_patient = kwargs.get("non_blocking", False) or (function.name().startswith("aten::copy_") and args[2:])
        assert len(places) < 2 or is_patient, f"{function} waits for {places}"
        return function(*args, **kwargs)


class NoConstants(TorchFunctionMode):
    """Refuses tensors made of Python values on the device: they are copied to it, and that is waited for."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if function in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor):
            assert made.device != FAR, f"{function} on the device"
        return made


def epoch_far_away(recipe, *, is_near=False, **model):
    """Two steps of `train_epoch`; the data lie on the device, or near, in the host's memory."""
    recipe = replace(recipe, batch_size=4, natural_share=0.0, small_share=0.0)
    config = SimpleNamespace(recipe=recipe, model=ModelConfig(num_classes=len(CLASSES), **{"width": 2} | model))
    device = FarDevice(FAR, torch.float32)
    state = State.create(config, device, ALONE)
    near = ImageData(torch.zeros(8, 3, 16, 16, dtype=torch.uint8), torch.arange(8) % 3, CLASSES)
    images = near if is_near else near.place(FAR)
    data = Data(images, images, images if recipe.extra_fraction else None)
    told = []
    with NoConstants(), NoWaitingCopies():
        means = train_epoch(
            state,
            data,
            recipe,
            recipe.epochs,
            1,
            torch.Generator().manual_seed(0),
            device,
            UntilTheEnd(),
            lambda epoch, images, means: told.append(means),
        )
    assert means.keys() == told[-1].keys()
    assert len(told) == 2
    assert all(value.device == FAR for value in told[-1].values())


PAPER, STRONG, FAST = (RECIPES[name] for name in ("paper", "strong", "fast"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_recipe_waits(recipe):
    epoch_far_away(RECIPES[recipe])


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["natural", "gaussian", "trades", "mart", "alp", "s2o"])
def test_no_objective_waits(objective):
    epoch_far_away(replace(PAPER, objective=objective))


@pytest.mark.slow
@pytest.mark.parametrize(
    "choices",
    [
        {"friendly": 3},
        {"curriculum": 5},
        {"augmentation": "cutmix", "label_smoothing": 0.1},
        {"augmentation": "none", "separation_target": "average"},
        {"extra_fraction": 0.5},
        {"awp": 0.01, "objective": "trades", "gradient_clip": 1.0},
    ],
    ids=str,
)
def test_no_choice_of_a_recipe_waits(choices):
    epoch_far_away(replace(PAPER, **choices))


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        {"mask": "binary"},
        {"mask": "random"},
        {"mask": "greedy"},
        {"fsr": False, "rival": "fd"},
        {"fsr": False, "rival": "cas"},
        {"fsr": False, "rival": "cifs"},
    ],
    ids=str,
)
def test_no_network_waits(model):
    epoch_far_away(PAPER, **model)


@pytest.mark.parametrize("extra_fraction", [0.0, 0.5])
def test_images_in_the_hosts_memory_are_copied_meanwhile(extra_fraction):
    epoch_far_away(replace(FAST, extra_fraction=extra_fraction), is_near=True)


@pytest.mark.parametrize(
    "wait",
    [
        lambda images: float(images.sum()),
        lambda images: images[images > 0.5],
        lambda images: images.nonzero(),
        lambda images: images[torch.tensor([1])],
        lambda images: images.new_tensor([1.0, 2.0]),
        lambda images: torch.ones(2).to(images.device),
    ],
    ids=["float", "boolean", "nonzero", "index", "constant", "copy"],
)
def test_what_waits_is_noticed(wait):
    images = torch.zeros(2, 3, device=FAR)
    with NoConstants(), NoWaitingCopies(), pytest.raises((AssertionError, RuntimeError)):
        wait(images)


def test_the_optimiser_is_fused_on_gpus(monkeypatch):
    class Gpu(Device):
        def place_model(self, model):
            """There is none here."""

    asked = {}
    monkeypatch.setattr(state_module.torch.optim, "SGD", lambda parameters, **given: asked.update(given))
    config = SimpleNamespace(recipe=PAPER, model=ModelConfig(num_classes=3, width=2))
    State.create(config, Gpu(torch.device("cuda"), torch.bfloat16), ALONE)
    assert asked["fused"]


def test_the_progress_bar_shows_what_has_arrived(monkeypatch):
    underway = Underway({"loss": torch.tensor(1.5), "train_accuracy": torch.tensor(0.25)})
    assert underway.arrived() == {"loss": 1.5, "train_accuracy": 0.25}
    underway._copied = SimpleNamespace(query=lambda: False)
    assert underway.arrived() is None
