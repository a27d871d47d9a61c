"""Everything that changes during a run: weights, their average, momentum."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.checkpoint import RunConfig, RunFolder
from training.device import Device
from training.models import FSRNet
from training.processes import Processes
from training.recipes import Recipe
from training.trainee import Trainee


@dataclass
class State:
    """The state of a run; `step` advances it, `tensors` and `restore` carry it over an interruption."""

    model: FSRNet
    trainee: Trainee
    """The model and its loss."""
    parallel: nn.Module
    """The same over all processes."""
    averaged: FSRNet
    """The weights that are validated and kept: an average of the model's, or the model itself."""
    optimizer: torch.optim.SGD
    best: float = -1.0
    """Highest validation accuracy so far, of the kind that the objective is judged by."""

    @classmethod
    def create(cls, config: RunConfig, device: Device, processes: Processes) -> "State":
        recipe = config.recipe
        model = config.model.build().train()
        if processes.count > 1 and device.is_cuda:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        device.place_model(model)
        averaged = model if recipe.ema_decay is None else copy.deepcopy(model).requires_grad_(False)
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=device.is_cuda,
        )
        # the net behind a binary mask gets no gradient
        trainee = Trainee(model, recipe)
        parallel = processes.parallel(trainee, has_unused=config.model.mask == "binary")
        return cls(model, trainee, parallel, averaged, optimizer)

    def learn(self, loss: Tensor) -> None:
        """Take the gradient of the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()

    def step(self, done: int, rate: float, recipe: Recipe) -> None:
        """One optimiser step at learning rate `rate`, then one of the average; `done` steps came before."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if recipe.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.gradient_clip)
        self.optimizer.step()
        if recipe.ema_decay is not None:
            # at first the average follows closely, or short runs would keep their random start
            average(self.averaged, self.model, min(recipe.ema_decay, (1 + done) / (10 + done)))

    def start_from(self, trained: FSRNet) -> None:
        """Take over the weights of another run; momentum and average begin anew."""
        self.model.load_state_dict(trained.state_dict())
        self.averaged.load_state_dict(trained.state_dict())

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name. Random state is not among it: every epoch draws from a seed of its own."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        if self.averaged is not self.model:
            tensors |= {f"averaged.{name}": value for name, value in self.averaged.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            if "momentum_buffer" in self.optimizer.state[parameter]:
                tensors[f"momentum.{name}"] = self.optimizer.state[parameter]["momentum_buffer"]
        tensors["best"] = torch.tensor(self.best, dtype=torch.float64)
        return tensors

    def restore(self, folder: RunFolder) -> int:
        """Take over the state kept in `folder`; returns the epochs it has done, 0 where none is kept."""
        tensors, done = folder.load_resume()
        if done == 0:
            return 0
        self.model.load_state_dict(_under("model.", tensors))
        if self.averaged is not self.model:
            self.averaged.load_state_dict(_under("averaged.", tensors))
        momenta = _under("momentum.", tensors)
        for name, parameter in self.model.named_parameters():
            if name in momenta:
                buffer = torch.empty_like(parameter, requires_grad=False).copy_(momenta[name])
                self.optimizer.state[parameter]["momentum_buffer"] = buffer
        self.best = float(tensors["best"])
        return done


@torch.no_grad()
def average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """averaged = decay * averaged + (1 - decay) * model, over weights and batch-norm statistics alike."""
    for mean, value in zip(averaged.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
