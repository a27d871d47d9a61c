"""Attacks as pure functions of a callable that maps images (n, 3, h, w) in [0, 1] to logits (n, classes)."""

from training.attacks.autoattack import autoattack
from training.attacks.hop_skip_jump import hop_skip_jump
from training.attacks.losses import cross_entropy, margin
from training.attacks.nattack import nattack
from training.attacks.pgd import Attack, Model, cw, fgsm, pgd
from training.attacks.random_noise import random_noise
from training.attacks.square import square
from training.attacks.transfer import di_fgsm, ti_fgsm

__all__ = [
    "Attack",
    "Model",
    "autoattack",
    "cross_entropy",
    "cw",
    "di_fgsm",
    "fgsm",
    "hop_skip_jump",
    "margin",
    "nattack",
    "pgd",
    "random_noise",
    "square",
    "ti_fgsm",
]
