"""What the workers of one server share."""

import fcntl
import os
import subprocess
import sys

import httpx
import pytest
from conftest import as_json, picture
from servers import running
from test_faults import processes

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


def test_a_worker_that_is_started_again_has_the_settings_of_the_start(models, tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text("max_images = 1\n")
    with running(models, tmp_path / "home", tmp_path / "log", FSR_SETTINGS=str(file)) as (address, server):
        file.write_text("max_images = 2\n")
        (worker,) = processes(server)
        worker.kill()
        worker.wait()
        two_images = as_json(picture("red"), picture("blue"))
        answer = httpx.post(f"{address}/classify", json=two_images, timeout=100)  # waits for the next worker
    assert answer.status_code == 413
    assert "at most 1 are accepted" in answer.json()["error"]["message"]
