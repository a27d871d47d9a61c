"""A version that is there is changed by one command at a time, and what one left halfway the next completes."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from fsr_serve.artifact import ModelVersion, finish_change, read_version
from training.lock import in_turn


@contextmanager
def being_changed(path: Path) -> Iterator[ModelVersion]:
    """Within, every other `being_changed` of this version waits. Raises ArtifactError as `read_version` does."""
    with in_turn(path) if path.is_dir() else nullcontext():  # what is not there is refused by reading it
        finish_change(path)
        yield read_version(path)


def open_version(path: Path) -> ModelVersion:
    """For a command that will change it. Raises ArtifactError as `read_version` does."""
    with being_changed(path) as version:
        return version
