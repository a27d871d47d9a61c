"""What CAS and CIFS share: a module that guesses the class from its features and masks channels by the guess."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Choice(nn.Module):
    """Logits (n, classes) -> the `count` likeliest classes, (n, count). Passes no gradient."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, logits: Tensor) -> Tensor:
        return logits.topk(self.count, dim=1).indices

    def with_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The same with the label in the first place: what the masks are trained with.

        As in the published code of CIFS the other places stay, so that a label that is second counts twice.
        """
        return torch.cat([labels[:, None], self.forward(logits)[:, 1:]], dim=1)


class Probed(nn.Module, ABC):
    """features (n, c, h, w) -> the same, each channel times its mask for the classes that `probe` finds likely.

    `probe` maps globally averaged features (n, c) to logits (n, classes), which the loss asks for through
    `FSRNet.heads`; there, in training mode, the label takes the place of the likeliest class.
    """

    def __init__(self, probe: nn.Module, choice: Choice) -> None:
        super().__init__()
        self.probe = probe
        self.choice = choice

    def forward(self, features: Tensor) -> Tensor:
        pooled = features.mean(dim=(2, 3))
        mask = self.mask(pooled, self.choice(self.probe(pooled)))
        return features * mask[:, :, None, None]

    @abstractmethod
    def mask(self, pooled: Tensor, classes: Tensor) -> Tensor:
        """The weight of each channel, (n, c), given the pooled features and the chosen classes (n, count)."""
