"""The exported file against torch, on the same images."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fsr_serve.artifact import MODEL_FILE
from fsr_serve.session import OnnxModel
from training.accuracy import frozen
from training.attacks import pgd

TOLERANCE = 1e-4
"""Largest difference of a logit that is accepted."""
ROUNDING = 1e-6
"""The same as a share of the largest logit, for networks whose logits are so large that float32 cannot do better."""
EPSILON = 8 / 255
STEPS = 10
BATCH = 64


class ParityError(ValueError):
    """The exported file does not compute what torch computes."""


class Parity(NamedTuple):
    """What the comparison found; `clean` and `perturbed` have one entry per image."""

    max_difference: float
    """Largest |torch - onnxruntime| of any logit."""
    clean: npt.NDArray[np.bool_]
    """Which images the exported file has right."""
    perturbed: npt.NDArray[np.bool_]
    """Which it has right under PGD-10, 8/255, steps of 2/255, random start."""


def compare(model: nn.Module, folder: Path, images: Tensor, labels: Tensor) -> Parity:
    """Compare on clean and on PGD-perturbed images. Raises ParityError when they differ by more than rounding."""
    exported = OnnxModel(folder / MODEL_FILE, device="cpu", threads=None)
    difference, largest = 0.0, 0.0
    correct: tuple[list[npt.NDArray[np.bool_]], ...] = ([], [])
    with frozen(model):
        for clean, truth in zip(images.split(BATCH), labels.split(BATCH), strict=True):
            perturbed = pgd(model, clean, truth, epsilon=EPSILON, step_size=EPSILON / 4, steps=STEPS)
            for inputs, flags in zip((clean, perturbed), correct, strict=True):
                with torch.no_grad():
                    expected = model(inputs).numpy()
                found = exported.logits(inputs.numpy())
                # NaN compares false with everything, so it must not pass through max()
                difference = float(np.maximum(difference, np.abs(expected - found).max()))
                largest = max(largest, float(np.abs(expected).max()))
                flags.append(found.argmax(axis=1) == truth.numpy())
    tolerance = max(TOLERANCE, ROUNDING * largest)
    if not (np.isfinite(difference) and difference <= tolerance):
        raise ParityError(
            f"the exported logits differ from torch's by up to {difference:.1e} over {len(images)} images, clean and "
            f"perturbed; at most {tolerance:.0e} is accepted, so nothing was written"
        )
    return Parity(difference, *(np.concatenate(flags) for flags in correct))
