"""How FSR's mask parts features: its values, where it is saturated, and what it calls non-robust per channel."""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.models.separated import Separated

BINS = 50

SATURATED_SCORE = 1.0
"""Beyond it, at tau 0.1, the mask's slope is below 1/5000 of its steepest: gradients through the mask vanish there."""


@dataclass(frozen=True)
class MaskStatistics:
    """Sums over the units (places and channels) of some images; those of two sets of images can be added."""

    counts: Tensor
    """int64 (BINS,): units by their mask m, in equal bins from 0 (non-robust) to 1 (robust)."""
    saturated: int | None
    """Units with a robustness score beyond +-`SATURATED_SCORE`; None for a mask without scores."""
    nonrobust_magnitude: Tensor
    """float64 (c,): the sum of |f-| per channel."""
    magnitude: Tensor
    """float64 (c,): the sum of |f| per channel."""

    def __add__(self, other: "MaskStatistics") -> "MaskStatistics":
        has_scores = self.saturated is not None and other.saturated is not None
        return MaskStatistics(
            self.counts + other.counts,
            (self.saturated or 0) + (other.saturated or 0) if has_scores else None,
            self.nonrobust_magnitude + other.nonrobust_magnitude,
            self.magnitude + other.magnitude,
        )

    @property
    def units(self) -> int:
        return int(self.counts.sum())

    @property
    def shares(self) -> Tensor:
        """Share of the units in each bin, float64 (BINS,)."""
        return self.counts / self.counts.sum().double()

    @property
    def nonrobust_share(self) -> float:
        """Share of the units with a mask below 1/2."""
        return float(self.shares[: BINS // 2].sum())

    @property
    def saturated_share(self) -> float | None:
        return None if self.saturated is None else self.saturated / self.units

    @property
    def mass(self) -> float:
        """Share of the features' magnitude that the mask calls non-robust."""
        return float(self.nonrobust_magnitude.sum() / self.magnitude.sum())

    @property
    def channel_mass(self) -> Tensor:
        """The same for each channel, float64 (c,); nan for a channel that is never active."""
        return self.nonrobust_magnitude / self.magnitude


def mask_statistics(separated: Separated) -> MaskStatistics:
    """Of one forward pass, on the CPU."""
    mask = 1 - separated.nonrobust_mask
    scores = separated.robustness_map
    return MaskStatistics(
        torch.histc(mask.double(), bins=BINS, min=0, max=1).long().cpu(),
        None if scores is None else int((scores.abs() > SATURATED_SCORE).sum()),
        *(x.abs().sum(dim=(0, 2, 3)).double().cpu() for x in (separated.nonrobust, separated.features)),
    )
