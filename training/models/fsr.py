"""Feature Separation and Recalibration, Kim et al., CVPR 2023 (arXiv 2303.13846), section 3.

The output needs neither the robust feature nor the auxiliary head: f+ + f- = f, so
f~ = f+ + f~- = f + m- * R(m- * f) with m- = 1 - m. Only the loss asks for the rest.
"""

from torch import Tensor, nn

from training.models.masks import MASKS, three_convolutions


class FSR(nn.Module):
    """Features (n, c, h, w) -> f~ of the same shape, non-robust units recalibrated instead of dropped.

    `mask` names the mask of `MASKS`; without `recalibration` the output is f+ alone (Table 6, "w/o Rec").
    `auxiliary` is the head h of Eq. 3 and 4: one linear layer on globally averaged features, shared by
    f+, f- and f~-. It is used by the loss alone, through `FSRNet.heads`.
    """

    def __init__(
        self, channels: int, num_classes: int, tau: float, *, mask: str = "gumbel", recalibration: bool = True
    ) -> None:
        super().__init__()
        self.separation = MASKS[mask](channels, tau)
        self.recalibration = three_convolutions(channels) if recalibration else None
        self.auxiliary = nn.Linear(channels, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        nonrobust_mask = self.separation(features)
        nonrobust = nonrobust_mask * features
        if self.recalibration is None:
            return features - nonrobust
        return features + nonrobust_mask * self.recalibration(nonrobust)
