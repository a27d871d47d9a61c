"""Which version of a model is to serve: one small file, which every worker watches.

Nothing but a call of the admin API writes it; it may also be written by hand, {"version": 2} is enough.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fsr_serve.artifact import ModelVersion
from fsr_serve.errors import StateError
from fsr_serve.files import write_atomically

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Wanted(BaseModel):
    """`sha256`, where given, is of the manifest; `previous` is what a rollback goes to.

    `answers_sha256` allows a version whose manifest was changed since, by a command that measures or calibrates.
    `call` tells one call of the admin API from another that asks for the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(ge=0)
    sha256: Sha256 | None = None
    answers_sha256: Sha256 | None = None
    previous: int | None = Field(default=None, ge=0)
    call: str | None = None

    @classmethod
    def exactly(cls, version: ModelVersion, previous: int | None = None, call: str | None = None) -> Self:
        return cls(
            version=version.version,
            sha256=version.sha256,
            answers_sha256=version.answers_sha256,
            previous=previous,
            call=call,
        )

    def is_met_by(self, version: ModelVersion) -> bool:
        return self.version == version.version and self.sha256 in (None, version.sha256)

    def allows(self, version: ModelVersion) -> bool:
        """Whether it is met, or by what gives the same answers."""
        return self.is_met_by(version) or (self.version, self.answers_sha256) == (
            version.version,
            version.answers_sha256,
        )


class WantedFile:
    """The wanted version of one model in the folder `state`."""

    def __init__(self, state: Path, model: str) -> None:
        self.path = state / f"{model}.json"

    def read(self) -> Wanted | None:
        """None where nobody asked for a version. Raises StateError when the file cannot be read."""
        try:
            return Wanted.model_validate_json(self.path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValidationError) as error:
            raise StateError(
                f'{self.path} cannot be read: {error}; expected {{"version": NUMBER}}. Mend it, or remove it to '
                "serve what the server started with"
            ) from error

    def write(self, wanted: Wanted) -> None:
        """Ask every worker for this. Raises StateError, asking nothing."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, wanted.model_dump_json(exclude_none=True).encode() + b"\n")
        except OSError as error:
            raise self._unwritable(error) from error

    @contextmanager
    def asking(self, wanted: Wanted) -> Iterator[None]:
        """Ask every worker for this, and for what was asked before where the block fails, even on a full disk.

        What somebody else asked for meanwhile stays. Raises StateError, asking nothing, or where it cannot be taken
        back.
        """
        kept = self.path.with_suffix(f".{wanted.call}.before")  # servers may share the folder
        try:
            try:
                if self.path.exists():
                    shutil.copyfile(self.path, kept)
            except OSError as error:
                raise self._unwritable(error) from error
            self.write(wanted)
            try:
                yield
            except BaseException as reason:
                self._ask_again(kept, wanted, reason)
                raise
        finally:
            with suppress(OSError):
                kept.unlink(missing_ok=True)

    def was_replaced(self, wanted: Wanted) -> bool:
        """Whether the file, where it can be read, asks for something else by now."""
        try:
            return self.read() != wanted
        except StateError:
            return False

    def _ask_again(self, kept: Path, wanted: Wanted, reason: BaseException) -> None:
        """For what was kept, instead of what is wanted."""
        if self.was_replaced(wanted):
            return
        try:
            if kept.exists():
                kept.replace(self.path)
            else:
                self.path.unlink()
        except OSError as error:
            raise StateError(
                f"{reason}. {self.path} cannot be changed back ({error.strerror}) and still asks for version "
                f"{wanted.version}: mend or remove it"
            ) from reason

    def _unwritable(self, error: OSError) -> StateError:
        return StateError(
            f"{self.path} cannot be written ({error.strerror}), so nothing was changed; expected a folder with "
            "room that the server may write, named by FSR_STATE"
        )
