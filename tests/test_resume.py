"""A run that is interrupted at any moment goes on to the same result, or says why it cannot."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import training_arguments
from safetensors.torch import load_file

from training.arguments import Arguments
from training.checkpoint import CheckpointError, RunFolder
from training.command import run
from training.source import DataError

MACHINE_MEASURES = {"epoch_seconds", "train_images_per_second", "peak_memory_bytes"}


def assert_same_result(whole, interrupted):
    for name in ("last", "best", "resume"):
        expected, found = (load_file(folder / f"{name}.safetensors") for folder in (whole, interrupted))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)

    def learned(folder):
        return [{k: v for k, v in line.items() if k not in MACHINE_MEASURES} for line in RunFolder(folder).history()]

    assert learned(whole) == learned(interrupted)


@pytest.fixture(scope="module")
def whole(tiny_data, tmp_path_factory):
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(training_arguments(tiny_data, out, epochs=3))
    return out


def test_a_run_killed_and_resumed_equals_an_uninterrupted_one(tiny_data, tmp_path, whole):
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "training", "--data", tiny_data, "--out", killed, "--width", "4"]
    command += ["--held-out", "32", "--epochs", "3"]
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    deadline = time.monotonic() + 120
    while not (killed / "resume.safetensors").exists():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)  # it lives, and does not end meanwhile
    with pytest.raises(CheckpointError, match=f"is being written by process {process.pid} on .* has one writer"):
        run(Arguments(data=str(tiny_data), out=killed, resume=True))
    process.send_signal(signal.SIGKILL)
    process.wait()
    begun = RunFolder(killed).load_resume()[1] + 1
    run(Arguments(data=str(tiny_data), out=killed, resume=True))
    assert_same_result(whole, killed)
    noted = json.loads((killed / "environment.json").read_text())
    assert [part["from_epoch"] for part in (noted, *noted["later"])] == [1, begun]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("act", ["save_weights", pytest.param("append_history", marks=pytest.mark.slow), "save_resume"])
def test_a_run_stopped_while_saving_loses_at_most_that_epoch(tiny_data, tmp_path, monkeypatch, whole, act, after):
    out = tmp_path / "run"
    real = getattr(RunFolder, act)

    def stops_in_epoch_2(folder, *given):
        if not len(folder.history()) >= 1:
            return real(folder, *given)
        if after:
            real(folder, *given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, act, stops_in_epoch_2)
        with pytest.raises(KeyboardInterrupt):
            run(training_arguments(tiny_data, out, epochs=3))
    run(Arguments(data=str(tiny_data), out=out, resume=True))
    assert_same_result(whole, out)


@pytest.mark.slow
def test_pgd_training_is_resumed_to_the_same_result_too(tiny_data, tmp_path, monkeypatch):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    run(training_arguments(tiny_data, whole, recipe="paper", epochs=2))
    real = RunFolder.save_resume

    def stop(folder, *given):
        real(folder, *given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "save_resume", stop)
        with pytest.raises(KeyboardInterrupt):
            run(training_arguments(tiny_data, resumed, recipe="paper", epochs=2))
    run(Arguments(data=str(tiny_data), out=resumed, resume=True))
    assert_same_result(whole, resumed)


def test_going_on_with_other_data_is_refused(checkpoint, tiny_data, tmp_path):
    other = shutil.copytree(tiny_data, tmp_path / "other")
    (other / "train" / "red" / "0.png").unlink()
    with pytest.raises(DataError, match=r"the training images are not those of the run: SHA-256 .* Say by --data"):
        run(Arguments(data=str(other), out=checkpoint, resume=True))


def test_a_damaged_resume_file_is_named(checkpoint, tiny_data, tmp_path):
    damaged = shutil.copytree(checkpoint, tmp_path / "run")
    (damaged / "resume.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"resume.safetensors is damaged: .*; the run cannot go on"):
        run(Arguments(data=str(tiny_data), out=damaged, resume=True))


def test_resuming_what_is_no_run_says_so(tiny_data, tmp_path):
    with pytest.raises(CheckpointError, match=r"config.json cannot be read .* expected a run folder"):
        run(Arguments(data=str(tiny_data), out=tmp_path, resume=True))


def test_a_deterministic_run_gives_the_same_losses_twice(tiny_data, tmp_path):
    try:
        for name in ("first", "second"):
            run(training_arguments(tiny_data, tmp_path / name, epochs=1, deterministic=True))
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same_result(tmp_path / "first", tmp_path / "second")
