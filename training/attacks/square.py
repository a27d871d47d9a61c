"""Square Attack on a torch model: asks for logits only, never for gradients. What it does: `training/square.py`."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from training.attacks.losses import lead
from training.attacks.pgd import Model
from training.square import Floats, Labels, search_by_squares


def square(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    queries: int,
    random: Sequence[np.random.Generator],
) -> Tensor:
    """Lower each image's lead by random squares, within `epsilon`, in at most `queries` calls per image.

    Images are (n, 3, h, w) in [0, 1], labels (n,); each image has its generator in `random`.
    """

    @torch.no_grad()
    def lead_of(shown: Floats, theirs: Labels) -> Floats:
        leads = lead(model(torch.from_numpy(shown).to(images)), torch.from_numpy(theirs).to(labels))
        found: Floats = leads.float().cpu().numpy()
        return found

    start, right = images.cpu().numpy(), labels.cpu().numpy()
    adversarial = search_by_squares(lead_of, start, right, epsilon=epsilon, queries=queries, random=random)
    return torch.from_numpy(adversarial).to(images)
