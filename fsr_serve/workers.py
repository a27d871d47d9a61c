"""What the workers of one server know of each other, in a folder that lives as long as the server.

Each worker holds a place: the lowest number whose lock is free. The kernel lets go of a lock when its process ends,
however it ends, so a lock that can be taken is a worker that is gone.

    0.worker  1.worker      locked while the worker lives; what it serves
    counter_0.db ...        what each has counted
    settings.toml           the settings file as it was at the start

Room for a report is taken with the place, so that a full disk silences nobody.
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

from fsr_serve.errors import StartupError
from fsr_serve.wanted import Wanted

FOLDER_VARIABLE = "_FSR_WORKERS"
"""Tells workers the folder; with an underscore, as it is no setting."""


class Report(BaseModel):
    """What one worker serves; `wanted` is what it was last asked for, `error` why it serves something else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    model: str
    version: int
    sha256: str
    runtime: str
    device: str
    precision: str
    wanted: Wanted
    error: str | None = None


REPORT_BYTES = 4096


class _Place(NamedTuple):
    number: int
    descriptor: int
    """Of the file; holds its lock."""


def make_folder() -> Path:
    """A new folder for the workers of one server, removed when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="fsr-serve-"))
    # systemd-tmpfiles, which removes what is old in /tmp, passes over a folder that somebody has locked
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH)
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)
    return folder


class Worker:
    """This process among the workers of `folder`. Raises StartupError where that has no room."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self._place = _take_place(folder)
            self._write("")  # over what the worker before had said
        except OSError as error:
            raise StartupError(
                f"{folder} cannot be used ({error.strerror}); free room there, or name another folder with TMPDIR"
            ) from error

    @classmethod
    def join(cls) -> "Worker":
        """A worker of the server that started this process, or the only one where none did."""
        folder = os.environ.get(FOLDER_VARIABLE)
        return cls(make_folder() if folder is None else Path(folder))

    @property
    def number(self) -> int:
        return self._place.number

    def report(self, report: Report) -> None:
        """Tell the others."""
        error = report.error and report.error.encode()[:1000].decode(errors="ignore")
        self._write(report.model_copy(update={"error": error}).model_dump_json())

    def reports(self) -> dict[int, Report | None]:
        """What each living worker serves; None from one that has not said so yet."""
        return {number: self._read(number) for number in self._numbers() if self.is_alive(number)}

    def is_alive(self, number: int) -> bool:
        """Whether a process holds that place."""
        if number == self.number:
            return True
        descriptor = os.open(_file(self.folder, number), os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def leave(self) -> None:
        """Give the place back, as the end of the process does."""
        os.close(self._place.descriptor)

    def _numbers(self) -> Iterator[int]:
        return (int(file.stem) for file in self.folder.glob("*.worker") if file.stem.isdecimal())

    def _read(self, number: int) -> Report | None:
        try:
            return Report.model_validate_json(_file(self.folder, number).read_bytes())
        except ValidationError:  # nothing yet, or half of it: the next look finds it whole
            return None

    def _write(self, text: str) -> None:
        os.pwrite(self._place.descriptor, text.encode().ljust(REPORT_BYTES), 0)


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number}.worker"


def _take_place(folder: Path) -> _Place:
    number = 0
    while True:
        descriptor = os.open(_file(folder, number), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            number += 1
        else:
            return _Place(number, descriptor)
