"""The best of several attacks on each image; restarts are the same attack several times."""

from collections.abc import Iterable

import torch
from torch import Tensor

from training.attacks.losses import lead
from training.attacks.pgd import Attack, Model


def best_of(attacks: Iterable[Attack]) -> Attack:
    """One attack after another, each on the images that none has broken yet: `best_of([attack] * 10)`.

    Of an image that stays unbroken, the result has the smallest margin found. Attacks must draw their own starts.
    """
    attacks = tuple(attacks)

    def attack_until_broken(model: Model, images: Tensor, labels: Tensor) -> Tensor:
        best, margins, is_wrong = images.clone(), *_outcome(model, images, labels)
        for attack in attacks:
            left = torch.nonzero(~is_wrong).squeeze(1)
            if not len(left):
                break
            found = attack(model, images[left], labels[left])
            found_margins, found_wrong = _outcome(model, found, labels[left])
            better = found_wrong | (found_margins < margins[left])
            best[left[better]], margins[left[better]] = found[better], found_margins[better]
            is_wrong[left] = found_wrong
        return best

    return attack_until_broken


@torch.no_grad()
def _outcome(model: Model, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The lead of each label, (n,), and whether the answer is wrong, (n,): a tie may be either."""
    logits = model(images)
    return lead(logits, labels), logits.argmax(dim=1) != labels
