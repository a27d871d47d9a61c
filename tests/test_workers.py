"""The folder that the workers of one server share."""

import fcntl
import os
import subprocess
import sys

import pytest

from fsr_serve.workers import make_folder

MAKE_FOLDER = "from fsr_serve.workers import make_folder; print(make_folder(), flush=True); input()"


def test_the_folder_is_locked_so_that_systemd_tmpfiles_does_not_remove_it():
    descriptor = os.open(make_folder(), os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as systemd-tmpfiles tries it
    os.close(descriptor)


def test_the_folder_goes_with_the_process_that_made_it():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", MAKE_FOLDER], **pipes) as process:
        folder = process.stdout.readline().strip()
        assert os.path.isdir(folder)
        process.communicate("\n")
    assert not os.path.exists(folder)
