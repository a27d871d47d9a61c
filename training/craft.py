"""The images that a network is trained on: clean, noisy, or attacked by what its objective raises."""

from collections.abc import Callable

import torch
from torch import Tensor

from training.attacks.ascent import Aim, ascend, n_fgsm, uniform_like
from training.models import FSRNet
from training.objectives import Inner, Objective, Target, cross_entropies, divergences
from training.recipes import Recipe

SMALL_START = 0.001
"""Standard deviation of the start of TRADES and MART, in [0, 1] pixels."""


def craft(
    model: FSRNet, images: Tensor, target: Target, objective: Objective, recipe: Recipe, epoch: int, steps: int
) -> Tensor:
    """Images (n, 3, h, w) in [0, 1], clean -> as the objective has them; PGD takes `steps` steps.

    The caller puts the model in eval mode. Noisy images leave [0, 1], as randomized smoothing has it.
    """
    if objective.inner is None:
        return images + recipe.sigma * torch.randn_like(images) if objective.images == "noisy" else images
    aim = _aim(model, images, target, objective.inner, recipe.lambda_probe)
    epsilon = recipe.epsilon
    if recipe.attack == "n_fgsm":
        return n_fgsm(aim, images, target.labels, epsilon=epsilon)
    # the divergence of two answers that bfloat16 rounds alike has no gradient
    is_lost = objective.inner is divergences and torch.is_autocast_enabled(images.device.type)
    small = objective.start == "gaussian" and not is_lost
    noise = SMALL_START * torch.randn_like(images) if small else uniform_like(images, epsilon)
    return ascend(
        aim,
        images,
        target.labels,
        start=images + noise,
        epsilon=epsilon,
        step_size=recipe.step_size,
        steps=steps,
        patience=recipe.friendly_steps(epoch),
    )


def _aim(model: FSRNet, images: Tensor, target: Target, inner: Inner, lambda_probe: float) -> Callable[[Tensor], Aim]:
    """What the attack raises: the inner loss and, as their papers have it, that of CAS's and CIFS's probes."""
    clean = None
    if inner is divergences:
        with torch.no_grad():
            clean = model(images)

    def aim(attacked: Tensor) -> Aim:
        if not model.has_probes:
            logits = model(attacked)
            return Aim(inner(logits, clean, target), logits)
        heads = model.heads(attacked)
        probes = torch.stack([cross_entropies(probe, None, target) for probe in heads.probes]).mean(dim=0)
        return Aim(inner(heads.logits, clean, target) + lambda_probe * probes, heads.logits)

    return aim
