"""The attacks of the paper's section 4.1 by name, all with random start unless single-step."""

from functools import partial
from typing import Literal, NamedTuple

from training.attacks import Attack, cw, fgsm, pgd

AttackName = Literal["fgsm", "pgd10", "pgd20", "pgd100", "cw"]


class NamedAttack(NamedTuple):
    """An attack and its definition in words, for reports."""

    attack: Attack
    definition: str


def attack_named(name: AttackName, epsilon: float) -> NamedAttack:
    """The attack called `name`, within `epsilon` (in [0, 1] pixels)."""
    if name == "fgsm":
        return NamedAttack(partial(fgsm, epsilon=epsilon), "one step of epsilon, no random start")
    if name == "cw":
        return NamedAttack(
            partial(cw, epsilon=epsilon), "margin loss, confidence 50, 30 steps of epsilon/10, random start"
        )
    steps, divisor = {"pgd10": (10, 4), "pgd20": (20, 10), "pgd100": (100, 10)}[name]
    attack = partial(pgd, epsilon=epsilon, step_size=epsilon / divisor, steps=steps)
    return NamedAttack(attack, f"cross-entropy, {steps} steps of epsilon/{divisor}, random start")
