"""How suspicious clean images look: what a check compares an image with.

A check averages the ranks of its signals among those of n clean images. Its p-value is split-conformal (Vovk et al.,
2005): (1 + clean images that look at least as suspicious) / (n + 1). Of images like the clean ones a share of at most
alpha has a p-value of at most alpha.
"""

import math
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Literal, Self
from zipfile import BadZipFile

import numpy as np

from fsr_serve.checks.history import REMEMBERED
from fsr_serve.checks.signals import Signal
from fsr_serve.errors import ArtifactError
from fsr_serve.session import Floats

CheckName = Literal["confidence", "separation", "probe", "history"]

CHECKS: dict[CheckName, tuple[Signal, ...]] = {
    "confidence": ("lead",),
    "separation": ("role_reversal", "disagreement", "lead"),
    "probe": ("probe",),
    "history": ("similar",),
}
"""The signals of each check. `confidence` is the baseline that others on single images have to beat."""
REACH = "reach"
"""The number beside the signals in the file."""


class Calibration:
    """Signals of n clean images, each float32 (n,), in the same order; `reach` is that of the history."""

    def __init__(self, signals: Mapping[Signal, Floats], reach: float) -> None:
        self.signals = dict(signals)
        self.reach = reach
        self.n = len(next(iter(signals.values())))
        self._sorted = {signal: np.sort(values) for signal, values in self.signals.items()}
        possible = [check for check, needs in CHECKS.items() if set(needs) <= self.signals.keys()]
        self._scores = {check: np.sort(self._score(check, self.signals)) for check in possible}

    @property
    def checks(self) -> tuple[CheckName, ...]:
        return tuple(self._scores)

    @property
    def remembered(self) -> int:
        """Images that the history holds: as many as each of the clean ones was compared with, or fewer."""
        return min(REMEMBERED, self.n)

    @property
    def least_p_value(self) -> float:
        """Of an image more suspicious than all the clean ones."""
        return 1 / (self.n + 1)

    def least_rate(self, checks: int) -> float:
        """The lowest rate of false alarms, in steps of 0.0001, at which so many checks together can find anything."""
        return math.ceil(checks * self.least_p_value * 10_000) / 10_000

    def p_values(self, check: CheckName, signals: Mapping[Signal, Floats]) -> np.ndarray:
        """Of images with these signals, (m,) in (0, 1]: the smaller, the more suspicious."""
        below = np.searchsorted(self._scores[check], self._score(check, signals), side="left")
        return np.asarray((1 + self.n - below) / (self.n + 1))

    def _score(self, check: CheckName, signals: Mapping[Signal, Floats]) -> np.ndarray:
        ranks = [_ranks(self._sorted[signal], signals[signal]) for signal in CHECKS[check]]
        return np.asarray(np.mean(ranks, axis=0))

    def as_bytes(self) -> bytes:
        """What `read` finds in a file."""
        file = BytesIO()
        np.savez(file, **self.signals, **{REACH: np.float32(self.reach)})  # type: ignore[arg-type]
        return file.getvalue()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ArtifactError for a file that is no calibration."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                signals = {name: arrays[name] for name in arrays.files}
                reach = float(signals.pop(REACH))
        except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise ArtifactError(f"{path} cannot be read as a calibration: {error}") from error
        known = {signal for needs in CHECKS.values() for signal in needs}
        lengths = {values.shape for values in signals.values()}
        if not signals or not set(signals) <= known or len(lengths) != 1 or len(lengths.pop()) != 1:
            raise ArtifactError(
                f"{path} holds {', '.join(signals) or 'nothing'}; expected signals of the same images, each one of "
                f"{', '.join(sorted(known))}. Make it anew with: python -m export.checks"
            )
        return cls(signals, reach)


def _ranks(ascending: Floats, values: Floats) -> np.ndarray:
    """How many are below each value, and half of those equal to it."""
    return np.asarray(np.searchsorted(ascending, values, "left") + np.searchsorted(ascending, values, "right")) / 2
