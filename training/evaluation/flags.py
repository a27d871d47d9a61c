"""Which images kept their label so far, in a file that survives an interruption."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.lock import in_turn
from training.source import DataError

Booleans = npt.NDArray[np.bool_]


class FlagsFile:
    """Flags of `total` images, known in parts and in any order, and the seconds spent on them.

    The file is replaced whole after every part; what other processes wrote meanwhile is kept. Raises DataError for a
    file that is damaged or of another number.
    """

    def __init__(self, path: Path, total: int) -> None:
        self._path = path
        self.correct, self.is_known, self.seconds = np.zeros(total, np.bool_), np.zeros(total, np.bool_), 0.0
        if path.exists():
            self.correct, self.is_known, self.seconds = _read(path, total)

    def unknown(self, batch: int) -> Iterator[slice]:
        """The parts of at most `batch` images of which not all are known, in order."""
        for first in range(0, len(self.correct), batch):
            part = slice(first, min(first + batch, len(self.correct)))
            if not self.is_known[part].all():
                yield part

    def write(self, part: slice, correct: Booleans, seconds: float) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with in_turn(self._path.parent):  # several may measure clean images
            if self._path.exists():
                self.correct, self.is_known, self.seconds = _read(self._path, len(self.correct))
            self.correct[part], self.is_known[part] = correct, True
            self.seconds += seconds
            unfinished = self._path.with_name(f".{os.getpid()}-{self._path.name}")
            with unfinished.open("wb") as file:
                np.savez_compressed(file, correct=self.correct, is_known=self.is_known, seconds=self.seconds)
            unfinished.replace(self._path)


def read_flags(path: Path, total: int) -> Booleans:
    """Of a finished measurement, bool (total,). Raises DataError where it is unfinished, damaged or not there."""
    if not path.exists():
        raise DataError(f"there is no {path}: which images kept their label was not kept. Measure anew")
    correct, is_known, _ = _read(path, total)
    if not is_known.all():
        raise DataError(f"{path} knows {is_known.sum()} of {total} images. Run the same command again to go on")
    return correct


def _read(path: Path, total: int) -> tuple[Booleans, Booleans, float]:
    try:
        with np.load(path, allow_pickle=False) as kept:
            correct, is_known, seconds = kept["correct"], kept["is_known"], float(kept["seconds"])
    except Exception as error:  # zipfile, zlib and numpy's header parser have a dozen kinds of their own
        raise DataError(f"{path} is damaged: {error}. Delete it to measure anew") from error
    if correct.shape != (total,) or is_known.shape != (total,) or {correct.dtype, is_known.dtype} != {np.dtype(bool)}:
        raise DataError(f"{path} does not hold flags of {total} images. Delete it to measure anew")
    return correct, is_known, seconds
