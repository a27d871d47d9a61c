"""Attacks as pure functions of a callable that maps images (n, 3, h, w) in [0, 1] to logits (n, classes)."""

from training.attacks.pgd import Attack, Model, cw, fgsm, margin, n_fgsm, pgd

__all__ = ["Attack", "Model", "cw", "fgsm", "margin", "n_fgsm", "pgd"]
