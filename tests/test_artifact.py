"""A model version is served as it was approved, or not at all."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from export.changing import open_version, write_manifest
from export.checking import write_checks
from fsr_serve.artifact import find_model, read_version, versions_of
from fsr_serve.checks.calibration import Calibration
from fsr_serve.errors import ArtifactError

FILES = ("attack.onnx", "evidence.onnx", "manifest.json", "manifest.sha256", "model.onnx", "weights.data")


@pytest.fixture
def version(models, tmp_path):
    return shutil.copytree(models / "colours" / "1", tmp_path / "colours" / "1")


def test_a_version_holds_just_these_files(version):
    assert sorted(path.name for path in version.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("where", ["first", "middle", "last"])
@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_is_refused_naming_the_file(version, name, where):
    content = bytearray((version / name).read_bytes())
    content[{"first": 0, "middle": len(content) // 2, "last": -1}[where]] ^= 1
    (version / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=name):
        read_version(version)


@pytest.mark.parametrize("change", [lambda content: content + b"\n", lambda content: content[:-1]])
@pytest.mark.parametrize("name", FILES)
def test_a_longer_or_shorter_file_is_refused(version, name, change):
    (version / name).write_bytes(change((version / name).read_bytes()))
    with pytest.raises(ArtifactError, match=name):
        read_version(version)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(version, name):
    (version / name).unlink()
    with pytest.raises(ArtifactError, match=rf"{name} cannot be read \(No such file or directory\)"):
        read_version(version)


def test_a_file_that_the_manifest_does_not_list_is_refused(version):
    (version / "extra.data").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"extra.data is not in the manifest"):
        read_version(version)


def test_the_digest_file_is_one_that_sha256sum_reads(version):
    done = subprocess.run(
        ["sha256sum", "-c", "manifest.sha256"], cwd=version, capture_output=True, text=True, check=True
    )
    assert done.stdout == "manifest.json: OK\n"


@pytest.fixture
def interrupted(version, monkeypatch):
    """A version whose manifest is new and whose digest is not yet."""
    real = Path.replace

    def replace(part, target):
        if target.name == "manifest.sha256":
            raise KeyboardInterrupt
        return real(part, target)

    manifest = read_version(version).manifest
    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        write_manifest(version, manifest.model_copy(update={"training": {"method": "new"}}))
    monkeypatch.undo()
    return version


def test_a_write_between_manifest_and_digest_is_finished_by_the_next_writer(interrupted):
    with pytest.raises(ArtifactError, match=r"was altered.*; where a command .* was interrupted, run that again"):
        read_version(interrupted)
    assert open_version(interrupted).manifest.training == {"method": "new"}
    assert read_version(interrupted).manifest.training == {"method": "new"}
    assert [path.name for path in interrupted.parent.iterdir()] == ["1"]


def test_a_manifest_altered_after_an_interrupted_write_is_still_refused(interrupted):
    manifest = interrupted / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"new", b"old"))
    with pytest.raises(ArtifactError, match="one of them was altered"):
        open_version(interrupted)


def test_a_version_can_be_named_by_where_one_stands(version, monkeypatch):
    monkeypatch.chdir(version)
    for path in (Path("."), Path("../1"), Path("../../colours/1/.")):
        found = read_version(path)
        assert (found.name, found.version) == ("colours", 1)
        assert open_version(path).path == version
    changed = open_version(Path("."))
    write_manifest(changed.path, changed.manifest)
    assert sorted(path.name for path in version.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", ["1-copy", "latest", "-1", "0", "01", "\u0661"])
def test_a_folder_that_is_not_named_by_a_number_is_no_version(version, name):
    copy = shutil.copytree(version, version.parent / name)
    for read in (read_version, open_version):
        with pytest.raises(ArtifactError, match=f"is named '{name}'; expected MODELS/NAME/VERSION with a whole number"):
            read(copy)


@pytest.mark.parametrize("has_checks", [False, True])
def test_nothing_is_put_in_place_before_it_is_on_the_disk(version, monkeypatch, has_checks):
    synced, replace, replaced = set(), Path.replace, []

    def fsync(descriptor):
        synced.add(os.fstat(descriptor).st_ino)

    def after_sync(part, target):
        assert {part.stat().st_ino, part.parent.stat().st_ino} <= synced, f"{part} and its folder"
        replaced.append(target.name)
        return replace(part, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", after_sync)
    if has_checks:
        calibrated(version)
    else:
        write_manifest(version, open_version(version).manifest)
    assert replaced == ["manifest.json", "manifest.sha256", *(["checks.npz"] if has_checks else [])]


def test_versions_are_folders_named_by_numbers_in_numeric_order(tmp_path):
    for name in ("1", "9", "10", "latest", ".11.part", "09", "\u0661"):
        (tmp_path / "colours" / name).mkdir(parents=True)
    assert list(versions_of(tmp_path / "colours")) == [1, 9, 10]


def test_among_several_models_one_must_be_named(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "1").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="holds a, b: name one with FSR_MODEL"):
        find_model(tmp_path, None)
    assert find_model(tmp_path, "b") == tmp_path / "b"
    with pytest.raises(ArtifactError, match="FSR_MODEL is 'c'; .* holds a, b: expected one of these"):
        find_model(tmp_path, "c")


def test_a_folder_without_models_says_how_to_make_one(tmp_path):
    with pytest.raises(ArtifactError, match="Make one with: python -m export runs/x models/x/1"):
        find_model(tmp_path / "none", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="holds no model"):
        find_model(tmp_path, "empty")


def test_folders_without_a_version_are_no_models(tmp_path):
    for name in ("colours/1", "lost+found", ".cache/1"):
        (tmp_path / name).mkdir(parents=True)
    assert find_model(tmp_path, None) == tmp_path / "colours"


def test_a_link_in_place_of_a_file_is_refused(version, tmp_path):
    (version / "weights.data").rename(tmp_path / "elsewhere")
    (version / "weights.data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match=r"weights.data is no plain file"):
        read_version(version)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256"])
@pytest.mark.parametrize("read", [read_version, open_version])
def test_a_pipe_or_a_link_in_place_of_the_manifest_is_refused_unread(version, name, read):
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        (version / name).unlink()
        make(version / name)
        with pytest.raises(ArtifactError, match=rf"{name} is no plain file"):
            read(version)


def test_a_manifest_of_gigabytes_is_refused_unread(version):
    os.truncate(version / "manifest.json", 2**40)
    with pytest.raises(ArtifactError, match=rf"manifest.json has {2**40} bytes; expected at most 16777216"):
        read_version(version)


def calibrated(version):
    write_checks(open_version(version), Calibration({"similar": np.zeros(9, np.float32)}, 0.1), ())


def test_what_is_written_can_be_read_by_a_server_of_another_user(version):
    before = os.umask(0o077)
    try:
        calibrated(version)
    finally:
        os.umask(before)
    for path in version.iterdir():
        assert path.stat().st_mode & 0o044 == 0o044, path


def test_nothing_is_written_through_a_link_that_lies_where_parts_are_written(version, tmp_path):
    (tmp_path / "precious").write_text("as it was")
    for name in ("manifest.json", "manifest.sha256", "checks.npz"):
        (version.parent / f".1.{name}").symlink_to(tmp_path / "precious")
    calibrated(version)
    assert (tmp_path / "precious").read_text() == "as it was"
    assert read_version(version).manifest.files.keys() >= {"checks.npz"}
    assert sorted(path.name for path in version.parent.iterdir()) == ["1"]


@pytest.mark.parametrize("room", [0, 1, 2])
def test_a_full_disk_changes_nothing_and_leaves_nothing(version, monkeypatch, room):
    before, synced = read_version(version), 0

    def fsync(descriptor):
        nonlocal synced
        synced += 1
        if synced > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        calibrated(version)
    assert read_version(version) == before
    assert [path.name for path in version.parent.iterdir()] == ["1"]


def test_a_manifest_cannot_name_files_elsewhere(version):
    manifest = json.loads((version / "manifest.json").read_text())
    manifest["files"]["../../secret"] = "0" * 64
    content = json.dumps(manifest).encode()
    (version / "manifest.json").write_bytes(content)
    (version / "manifest.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")
    with pytest.raises(ArtifactError, match=r"is not a manifest of format 2(.|\n)*../../secret"):
        read_version(version)


def test_a_version_behind_a_link_keeps_the_name_it_is_served_under(models, tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "7").symlink_to(models / "colours" / "1")
    found = read_version(tmp_path / "served" / "7")
    assert (found.name, found.version) == ("served", 7)
