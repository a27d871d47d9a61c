"""Channel-wise Activation Suppressing, Bai et al., ICLR 2021 (arXiv 2103.08307), section 3.2."""

from torch import Tensor, nn

from training.rivals.probe import Choice, Probed


class CAS(Probed):
    """Each channel times its weight for the class: row W[y] of the linear probe in training, W[argmax] after.

    The weights are signed and not normalised. The choice of the row passes no gradient to the features, so that
    plain gradient attacks overstate the robustness of a network with CAS.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(nn.Linear(channels, num_classes), Choice(1))

    def mask(self, pooled: Tensor, classes: Tensor) -> Tensor:
        assert isinstance(self.probe, nn.Linear)
        return self.probe.weight[classes[:, 0]]
