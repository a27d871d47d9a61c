"""Which images kept their label so far, in a file that survives an interruption."""

import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.source import DataError


class FlagsFile:
    """Flags of the first images of `total`, and the seconds spent on them; the file is replaced after every batch."""

    def __init__(self, path: Path, total: int) -> None:
        self._path = path
        self.correct: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)
        self.seconds = 0.0
        if path.exists():
            try:
                with np.load(path, allow_pickle=False) as kept:
                    self.correct, self.seconds = kept["correct"], float(kept["seconds"])
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                raise DataError(f"{path} is damaged: {error}. Delete it to measure anew") from error
        if len(self.correct) > total or self.correct.dtype != np.bool_:
            raise DataError(f"{path} does not hold flags of {total} images. Delete it to measure anew")

    @property
    def done(self) -> int:
        return len(self.correct)

    def append(self, correct: npt.NDArray[np.bool_], seconds: float) -> None:
        self.correct = np.concatenate([self.correct, correct])
        self.seconds += seconds
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(f".{self._path.name}")
        with part.open("wb") as file:
            np.savez(file, correct=self.correct, seconds=self.seconds)
        part.replace(self._path)
