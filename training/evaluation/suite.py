"""The attacks of the paper's section 4.1 by name, all with random start unless single-step."""

from functools import partial
from typing import Literal

from training.attacks import Attack, cw, fgsm, pgd

AttackName = Literal["fgsm", "pgd10", "pgd20", "pgd100", "cw"]


def attack_named(name: AttackName, epsilon: float) -> Attack:
    """Steps of epsilon / 10 for `pgd20`, `pgd100` and `cw` (30 of them), of epsilon / 4 for `pgd10`."""
    attacks: dict[AttackName, Attack] = {
        "fgsm": partial(fgsm, epsilon=epsilon),
        "pgd10": partial(pgd, epsilon=epsilon, step_size=epsilon / 4, steps=10),
        "pgd20": partial(pgd, epsilon=epsilon, step_size=epsilon / 10, steps=20),
        "pgd100": partial(pgd, epsilon=epsilon, step_size=epsilon / 10, steps=100),
        "cw": partial(cw, epsilon=epsilon),
    }
    return attacks[name]
