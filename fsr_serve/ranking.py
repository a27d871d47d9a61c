"""Logits -> the likeliest classes, and how far one of them leads."""

import math

import numpy as np
import numpy.typing as npt

from fsr_serve.session import Floats

FEW_CLASSES = 100
"""Up to so many, numpy's calls take longer than what they do."""


def likeliest(logits: Floats, count: int) -> list[tuple[int, float]]:
    """The `count` likeliest classes of one image's logits (classes,), and their probabilities, in falling order.

    Of equally likely classes the lower one comes first.
    """
    if len(logits) > FEW_CLASSES:
        order = np.argsort(-logits, kind="stable")[:count]
        exponentials = np.exp(logits - logits[order[0]])
        return list(zip(order.tolist(), (exponentials[order] / exponentials.sum()).tolist(), strict=True))
    values = logits.tolist()
    classes = sorted(range(len(values)), key=values.__getitem__, reverse=True)[:count]
    greatest = values[classes[0]]
    exponentials = [math.exp(value - greatest) for value in values]
    total = sum(exponentials)
    return [(index, exponentials[index] / total) for index in classes]


def lead(logits: Floats, labels: npt.NDArray[np.int64]) -> Floats:
    """Logit (n,) of each label less the largest other of logits (n, classes); negative where the answer is another."""
    others = logits.copy()
    rows = np.arange(len(labels))
    others[rows, labels] = -np.inf
    leads: Floats = logits[rows, labels] - others.max(axis=1)
    return leads
