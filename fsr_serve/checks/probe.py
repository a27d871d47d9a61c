"""Gradient attacks on a deployed model: PGD over its attack graph, in onnxruntime alone.

Images are float32 (n, 3, h, w) in [0, 1], labels (n,). FGSM is one step of `epsilon` without a start.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fsr_serve.artifact import GRADIENT, IMAGES, LABELS, LOGITS, LOSS, LOSS_WEIGHTS
from fsr_serve.session import Device, Floats, start_onnxruntime

Labels = npt.NDArray[np.int64]

CROSS_ENTROPY = (1.0, 0.0)
"""Loss weights: the loss that FGSM and PGD raise."""
MARGIN = (0.0, 1.0)
"""Loss weights: the C&W margin with confidence 50."""


class Step(NamedTuple):
    """What the attack graph computes for one batch."""

    logits: Floats
    loss: Floats
    """Per image, (n,)."""
    gradient: Floats
    """Of the summed loss with respect to the images, of their shape."""


class AttackGraph:
    """An attack.onnx in onnxruntime. Raises as `start_onnxruntime` does."""

    def __init__(self, path: Path, *, device: Device, threads: int | None) -> None:
        # stored weights may be 8-bit or half precision; they are decoded once, when the graph is loaded
        self._session = start_onnxruntime(
            path, device=device, threads=threads, config={"session.disable_quant_qdq": "1"}
        )

    def step(self, images: Floats, labels: Labels, loss_weights: tuple[float, float]) -> Step:
        inputs = {IMAGES: images, LABELS: labels, LOSS_WEIGHTS: np.array(loss_weights, np.float32)}
        return Step(*self._session.run([LOGITS, LOSS, GRADIENT], inputs))


def pgd(
    graph: AttackGraph,
    images: Floats,
    labels: Labels,
    *,
    epsilon: float,
    step_size: float,
    steps: int,
    start: Floats | None = None,
    loss_weights: tuple[float, float] = CROSS_ENTROPY,
) -> Floats:
    """Projected gradient ascent within the epsilon ball, from the images plus `start` (Madry et al., ICLR 2018)."""
    lower, upper = np.maximum(images - epsilon, 0), np.minimum(images + epsilon, 1)
    adversarial = np.clip(images if start is None else images + start, lower, upper)
    for _ in range(steps):
        gradient = graph.step(adversarial, labels, loss_weights).gradient
        adversarial = np.clip(adversarial + step_size * np.sign(gradient), lower, upper)
    return adversarial
