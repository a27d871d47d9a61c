"""AutoAttack (Croce and Hein, ICML 2020, arXiv 2003.01690) by the authors' own code, the package pyautoattack."""

import sys

import torch
from torch import Tensor

from training.attacks.pgd import Model

STANDARD_CLASSES = 10
"""From so many on it is the standard version, which aims at nine other classes."""
TARGETED_CLASSES = 4
"""The fewest that targeted APGD can do with."""


def autoattack(model: Model, images: Tensor, labels: Tensor, *, epsilon: float, seed: int) -> Tensor:
    """The standard version: APGD on cross-entropy, targeted APGD and FAB, Square, each on what is yet unbroken.

    With fewer than ten classes the targeted attacks aim at all others; targeted APGD needs four classes, so three have
    untargeted APGD on DLR, and two neither. Flags of the package go to the logger `auto-attack`. All of its random
    numbers come from `seed`; torch's own state is left as it was. Raises ModuleNotFoundError, which names the extra.
    """
    try:
        from pyautoattack import AutoAttack
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("AutoAttack needs pyautoattack. Install it with: pip install '.[eval]'") from error
    images = images.contiguous()
    with torch.no_grad():
        num_classes = model(images[:1]).shape[1]
    attacks = attacks_for(num_classes)
    device = images.device
    suite = AutoAttack(
        _with_plain_gradients(model),
        norm="Linf",
        eps=epsilon,
        version="custom",
        attacks=attacks,
        device=device,
        seed=seed,
    )
    suite.apgd.n_restarts = suite.fab.n_restarts = 1
    suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = min(num_classes, STANDARD_CLASSES) - 1
    tracer = sys.gettrace()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            adversarial, _ = suite.run_standard_evaluation(images, labels, batch_size=len(images))
    finally:
        sys.settrace(tracer)  # the package ends any tracing, and with it the measuring of coverage
    return torch.clamp(adversarial, (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)).detach()


def _with_plain_gradients(model: Model) -> Model:
    """The same, but gradients of images are never channels last: the package takes views of them."""

    def answer(images: Tensor) -> Tensor:
        given = images.clone()
        if given.requires_grad:
            given.register_hook(Tensor.contiguous)
        return model(given)

    return answer


def attacks_for(num_classes: int) -> list[str]:
    """The package's names of the attacks that so many classes allow, in order; those of the standard from four on."""
    if num_classes == 2:
        return ["apgd-ce", "fab-t", "square"]
    return ["apgd-ce", "apgd-t" if num_classes >= TARGETED_CLASSES else "apgd-dlr", "fab-t", "square"]


def version_for(num_classes: int) -> str:
    """What is run on so many classes, in words: the standard version, or what it lacks."""
    if num_classes >= STANDARD_CLASSES:
        return "standard"
    if num_classes >= TARGETED_CLASSES:
        return f"standard but for its targets, {num_classes - 1} classes instead of {STANDARD_CLASSES - 1}"
    return f"not standard, {num_classes} classes allow no more than {', '.join(attacks_for(num_classes))}"
