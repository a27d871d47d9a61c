"""One writer per file: a second process is refused while the first lives, and never afterwards."""

import errno
import fcntl
import subprocess
import sys

import pytest

from training.checkpoint import CheckpointError, RunFolder
from training.lock import LockedError, locked

HOLD = """
import sys
from pathlib import Path
from training.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_a_lock_is_another_processs_until_it_ends_however_it_ends(tmp_path, end):
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(LockedError, match=f"process {other.pid} on "), locked(path):
            pass
        getattr(other, end)()
        other.wait()
    with locked(path), pytest.raises(LockedError), locked(path):
        pass


def test_a_run_folder_has_one_writer_and_is_new_until_a_run_begins(tmp_path):
    folder, other = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    with folder.claimed():
        folder.check_is_new()
        with (
            pytest.raises(CheckpointError, match=r"is being written by process \d+ on "),
            other.claimed(),
        ):
            pass
    with other.claimed():
        pass


def test_what_is_no_new_folder_says_why(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file is a file; choose another --out"):
        RunFolder(tmp_path / "file").check_is_new()
    with pytest.raises(CheckpointError, match="is not empty and holds no run; choose another --out"):
        RunFolder(tmp_path).check_is_new()
    (tmp_path / "config.json").touch()
    with pytest.raises(CheckpointError, match="holds a run; go on with it by --resume, or choose another --out"):
        RunFolder(tmp_path).check_is_new()


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="cannot be locked"), locked(tmp_path / "lock"):
        pass
