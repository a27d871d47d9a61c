"""A version that is there is changed by one command at a time, and what one left halfway the next completes."""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
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
from fsr_serve.files import is_plain, sync
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


def write_manifest(path: Path, manifest: Manifest, others: Mapping[str, bytes] | None = None) -> None:
    """Write the manifest and its digest into the version's folder, and other files of it that change with them.

    Raises OSError, changing nothing. Interrupted while they are put in place, it leaves a version that is refused
    until it is opened to be changed.
    """
    manifest_bytes = (manifest.model_dump_json(indent=2) + "\n").encode()
    digest = digest_line(hashlib.sha256(manifest_bytes).hexdigest())
    contents = {MANIFEST_FILE: manifest_bytes, DIGEST_FILE: digest} | dict(others or {})
    try:
        for name, content in contents.items():
            _write_part(path, name, content)
        sync(path.parent)
    except BaseException:
        for name in contents:
            _part_of(path, name).unlink(missing_ok=True)
        raise
    for name in contents:
        put_in_place(path, name)


def put_in_place(path: Path, name: str) -> None:
    _part_of(path, name).replace(path / name)


def _part_of(path: Path, name: str) -> Path:
    """Where a file of the version is written before it is put in place."""
    return path.parent / f".{path.name}.{name}"


def _write_part(path: Path, name: str, content: bytes) -> None:
    part = _part_of(path, name)
    part.unlink(missing_ok=True)  # of an interrupted change; a link that was laid there is not followed
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    part.chmod(0o644)  # the server may be another user
    sync(part)


def _finish_change(path: Path) -> None:
    """Put in place what an interrupted change left beside the version: the manifest's digest, and files that it lists.

    No other may be writing.
    """
    part, manifest = _part_of(path, DIGEST_FILE), path / MANIFEST_FILE
    if not is_plain(manifest):
        return  # reading the version says so
    if is_plain(part) and part.read_bytes() == digest_line(file_sha256(manifest)):
        put_in_place(path, DIGEST_FILE)
    with contextlib.suppress(OSError, ValidationError):  # reading the version says what is wrong
        for name, expected in Manifest.model_validate_json(manifest.read_bytes()).files.items():
            if is_plain(_part_of(path, name)) and file_sha256(_part_of(path, name)) == expected:
                put_in_place(path, name)
