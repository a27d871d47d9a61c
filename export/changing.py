"""A version that is there is changed by one command at a time, and what one left halfway the next completes."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from fsr_serve.artifact import (
    DIGEST_FILE,
    MANIFEST_FILE,
    Manifest,
    ModelVersion,
    digest_line,
    file_sha256,
    read_version,
)
from fsr_serve.files import sync
from training.lock import in_turn


@contextlib.contextmanager
def being_changed(path: Path) -> Iterator[ModelVersion]:
    """Within, every other `being_changed` of this version waits. Raises ArtifactError as `read_version` does."""
    path = Path(os.path.abspath(path))  # parts are written beside the version, and "." has no such place
    with in_turn(path) if path.is_dir() else contextlib.nullcontext():  # what is not there is refused by reading it
        _finish_change(path)
        yield read_version(path)


def open_version(path: Path) -> ModelVersion:
    """For a command that will change it. Raises ArtifactError as `read_version` does."""
    with being_changed(path) as version:
        return version


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write the manifest and its digest into the version's folder; its other files are there already.

    Interrupted between the two, it leaves a version that is refused until it is opened to be changed.
    """
    manifest_bytes = (manifest.model_dump_json(indent=2) + "\n").encode()
    contents = {
        MANIFEST_FILE: manifest_bytes,
        DIGEST_FILE: digest_line(hashlib.sha256(manifest_bytes).hexdigest()),
    }
    for name, content in contents.items():
        part_of(path, name).write_bytes(content)
        sync(part_of(path, name))
    sync(path.parent)
    for name in contents:
        put_in_place(path, name)


def part_of(path: Path, name: str) -> Path:
    """Where a file of the version is written before it is put in place."""
    return path.parent / f".{path.name}.{name}"


def put_in_place(path: Path, name: str) -> None:
    part_of(path, name).replace(path / name)


def _finish_change(path: Path) -> None:
    """Put in place what an interrupted change left beside the version: the manifest's digest, and files that it lists.

    No other may be writing.
    """
    part, manifest = part_of(path, DIGEST_FILE), path / MANIFEST_FILE
    if part.exists() and manifest.exists() and part.read_bytes() == digest_line(file_sha256(manifest)):
        put_in_place(path, DIGEST_FILE)
    with contextlib.suppress(OSError, ValidationError):  # reading the version says what is wrong
        for name, expected in Manifest.model_validate_json(manifest.read_bytes()).files.items():
            if part_of(path, name).exists() and file_sha256(part_of(path, name)) == expected:
                put_in_place(path, name)
