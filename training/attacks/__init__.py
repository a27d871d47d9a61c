"""Attacks as pure functions of a callable that maps images (n, 3, h, w) in [0, 1] to logits (n, classes)."""

from training.attacks.pgd import Attack, Model, cross_entropy, cw, fgsm, margin, pgd
from training.attacks.square import square

__all__ = ["Attack", "Model", "cross_entropy", "cw", "fgsm", "margin", "pgd", "square"]
