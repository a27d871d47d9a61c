"""Long commands in parts: what is done stays done, what is stopped goes on, what fails stops its chain."""

import signal
import sys
import time

import pytest

from benchmarks.gpu.queue import Job, Queue
from benchmarks.gpu.runs import JUDGED, RUNS, chains
from training.arguments import parse
from training.evaluation.suite import ASCENTS, SEARCHES

TOUCH = """
import pathlib, sys, time
file, *gates = map(pathlib.Path, sys.argv[1:])
while not all(gate.exists() for gate in gates):
    time.sleep(0.05)
file.touch()
"""


def touching(path, *gates):
    """A job that makes a file as soon as there are others."""
    return Job(path.name, (sys.executable, "-c", TOUCH, str(path), *map(str, gates)))


def test_work_that_is_stopped_goes_on_in_the_next_call_until_it_is_done(tmp_path):
    queue, gate, told = Queue(tmp_path / "queue", together=1), tmp_path / "gate", []
    chain = [touching(tmp_path / "file", gate), touching(tmp_path / "after")]
    queue.work([chain], 3.0, told.append)
    assert told[-1] == "file: stopped, the time is over"
    assert not any(map(queue.is_done, chain))
    assert not (tmp_path / "after").exists()
    gate.touch()
    queue.work([chain], 120.0, told.append)
    assert all(map(queue.is_done, chain))


def test_what_is_done_is_not_done_again(tmp_path):
    queue, told = Queue(tmp_path / "queue", together=1), []
    chain = [touching(tmp_path / "file")]
    for _ in range(2):
        queue.work([chain], 120.0, told.append)
    assert sum(line.startswith("file: done") for line in told) == 1


def test_a_job_that_fails_ends_its_chain_alone_and_its_log_says_why(tmp_path):
    queue, told = Queue(tmp_path, together=1), []
    fails = Job("fails", (sys.executable, "-c", "raise SystemExit('no such data')"))
    queue.work([[fails, touching(tmp_path / "after")], [touching(tmp_path / "other")]], 120.0, told.append)
    assert "no such data" in (tmp_path / "logs" / "fails.log").read_text()
    assert not (tmp_path / "after").exists()
    assert (tmp_path / "other").exists()
    assert any(line.startswith("fails: failed") and "status 1" in line for line in told)


def test_chains_run_side_by_side(tmp_path):
    queue = Queue(tmp_path, together=2)
    one = [touching(tmp_path / "first"), touching(tmp_path / "third", tmp_path / "second")]
    other = [touching(tmp_path / "second", tmp_path / "first")]
    queue.work([one, other], 120.0, lambda line: None)
    assert all(map(queue.is_done, [*one, *other]))


@pytest.fixture
def ctrl_c():
    """As from a terminal: what starts tests in the background may have told them to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_begins_nothing_new(tmp_path, ctrl_c):
    press = "import os, signal, time; os.kill(os.getppid(), signal.SIGINT); time.sleep(5)"
    chains = [[Job("pressed", (sys.executable, "-c", press))], [touching(tmp_path / "after")]]
    with pytest.raises(KeyboardInterrupt):
        Queue(tmp_path / "queue", together=1).work(chains, 120.0, lambda line: None)
    assert not (tmp_path / "after").exists()


def test_no_job_begins_when_the_time_is_over(tmp_path):
    started = time.monotonic()
    Queue(tmp_path, together=1).work([[touching(tmp_path / "file")]], 0.0, lambda line: None)
    assert time.monotonic() - started < 30
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("name", RUNS)
def test_every_run_is_a_training_and_all_that_is_measured_of_it(tmp_path, name):
    (chain,) = chains([name], tmp_path, "data", "CIFAR-10", ["--epochs", "3"])
    training = parse(chain[0].command[3:])
    assert (training.out, training.data, training.data_name) == (tmp_path / name, "data", "CIFAR-10")
    assert training.recipe.epochs == 3
    assert training.architecture.fsr == ("fsr" in name)
    judged = [job.name for job in chain[1:]]
    assert len(judged) == len(set(judged)) == 2 * (3 if training.architecture.fsr else 2)


def test_what_is_measured_are_attacks_that_exist():
    known = {*ASCENTS, *SEARCHES, "ensemble"}
    assert {attack for judged in JUDGED.values() for attack in judged.attacks} <= known


def test_a_run_that_has_begun_is_gone_on_with(checkpoint, tmp_path):
    (chain,) = chains(["at"], tmp_path, "data", "CIFAR-10", [])
    assert "--resume" not in chain[0].command
    (tmp_path / "at").symlink_to(checkpoint)
    (chain,) = chains(["at"], tmp_path, "data", "CIFAR-10", ["--compile"])
    assert chain[0].command[-2:] == ("--resume", "--compile")
