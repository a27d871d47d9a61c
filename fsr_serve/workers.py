"""What the workers of one server know of each other, in a folder that lives as long as the server.

Each worker holds a place: the lowest number whose lock is free. The kernel lets go of a lock when its process ends,
however it ends, so a lock that can be taken is a worker that is gone.

    0.lock  1.lock          who is there
    0.json  1.json          what each serves
    counter_0.db ...        what each has counted
"""

import atexit
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from fsr_serve.files import write_atomically
from fsr_serve.wanted import Wanted

FOLDER_VARIABLE = "_FSR_WORKERS"
"""Tells workers the folder; with an underscore, as it is no setting."""


class Report(BaseModel):
    """What one worker serves; `wanted` is what it was last asked for, `error` why it serves something else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: int
    sha256: str
    runtime: str
    device: str
    precision: str
    wanted: Wanted
    error: str | None = None


class _Place(NamedTuple):
    number: int
    lock: int
    """File descriptor that holds the lock."""


def make_folder() -> Path:
    """A new folder for the workers of one server, removed when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="fsr-serve-"))
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)
    return folder


class Worker:
    """This process among the workers of `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._place = _take_place(folder)
        self._report_file.unlink(missing_ok=True)  # of who was here before

    @classmethod
    def join(cls) -> "Worker":
        """A worker of the server that started this process, or the only one where none did."""
        folder = os.environ.get(FOLDER_VARIABLE)
        return cls(make_folder() if folder is None else Path(folder))

    @property
    def number(self) -> int:
        return self._place.number

    @property
    def _report_file(self) -> Path:
        return self.folder / f"{self.number}.json"

    def report(self, report: Report) -> None:
        """Tell the others. Raises OSError when the folder cannot be written."""
        write_atomically(self._report_file, report.model_dump_json().encode())

    def reports(self) -> dict[int, Report | None]:
        """What each living worker serves; None from one that has not said so yet."""
        return {number: self._read(number) for number in self._numbers() if self.is_alive(number)}

    def is_alive(self, number: int) -> bool:
        """Whether a process holds that place."""
        if number == self.number:
            return True
        descriptor = os.open(self.folder / f"{number}.lock", os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def leave(self) -> None:
        """Give the place back, as the end of the process does."""
        os.close(self._place.lock)

    def _numbers(self) -> Iterator[int]:
        return (int(file.stem) for file in self.folder.glob("*.lock") if file.stem.isdecimal())

    def _read(self, number: int) -> Report | None:
        try:
            return Report.model_validate_json((self.folder / f"{number}.json").read_bytes())
        except (OSError, ValidationError):
            return None


def _take_place(folder: Path) -> _Place:
    number = 0
    while True:
        descriptor = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            number += 1
        else:
            return _Place(number, descriptor)
