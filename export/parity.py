"""The exported file against torch, on the same images."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fsr_serve.artifact import MODEL_FILE
from fsr_serve.session import OnnxModel
from training.accuracy import frozen
from training.attacks import pgd

TOLERANCE = 1e-4
EPSILON = 8 / 255
STEPS = 10
BATCH = 64


class ParityError(ValueError):
    """The exported file does not compute what torch computes."""


class Parity(NamedTuple):
    """What the comparison found; the counts are of the exported file's own answers."""

    images: int
    """Images compared, each clean and perturbed."""
    max_difference: float
    """Largest |torch - onnxruntime| of any logit."""
    correct_clean: int
    correct_perturbed: int
    """Right under PGD-10, 8/255, steps of 2/255, random start."""


def compare(model: nn.Module, folder: Path, images: Tensor, labels: Tensor) -> Parity:
    """Compare on clean and on PGD-perturbed images. Raises ParityError beyond a difference of 1e-4."""
    exported = OnnxModel(folder / MODEL_FILE, device="cpu", threads=None)
    difference, correct = 0.0, [0, 0]
    with frozen(model):
        for clean, truth in zip(images.split(BATCH), labels.split(BATCH), strict=True):
            perturbed = pgd(model, clean, truth, epsilon=EPSILON, step_size=EPSILON / 4, steps=STEPS)
            for index, inputs in enumerate((clean, perturbed)):
                with torch.no_grad():
                    expected = model(inputs).numpy()
                found = exported.logits(inputs.numpy())
                # NaN compares false with everything, so it must not pass through max()
                difference = float(np.maximum(difference, np.abs(expected - found).max()))
                correct[index] += int((found.argmax(axis=1) == truth.numpy()).sum())
    if not difference <= TOLERANCE:
        raise ParityError(
            f"the exported logits differ from torch's by up to {difference:.1e} over {len(images)} images, clean and "
            f"perturbed; at most {TOLERANCE:.0e} is accepted, so nothing was written"
        )
    return Parity(len(images), difference, *correct)
