"""Long commands in parts: what is done stays done, what is stopped goes on, what fails stops its chain."""

import sys
import time

import pytest

from benchmarks.gpu.queue import Job, Queue
from benchmarks.gpu.runs import JUDGED, RUNS, chains
from training.arguments import parse
from training.evaluation.suite import ASCENTS, SEARCHES

COUNT = """
import pathlib, sys, time
file = pathlib.Path(sys.argv[1])
try:
    for number in range(int(file.read_text()) if file.exists() else 0, int(sys.argv[2])):
        time.sleep(0.05)
        file.write_text(str(number + 1))
except KeyboardInterrupt:
    sys.exit("stopped")
"""


def counting(path, to):
    """A job that counts on from where it was stopped."""
    return Job(path.name, (sys.executable, "-c", COUNT, str(path), str(to)))


def test_work_that_is_stopped_goes_on_in_the_next_call_until_it_is_done(tmp_path):
    queue, file, told = Queue(tmp_path / "queue", together=1), tmp_path / "file", []
    chain = [counting(file, 40), counting(tmp_path / "after", 1)]
    queue.work([chain], 1.0, told.append)
    assert 0 < int(file.read_text()) < 40
    assert told[-1] == "file: stopped, the time is over"
    assert not (tmp_path / "after").exists()
    queue.work([chain], 60.0, told.append)
    assert file.read_text() == "40"
    assert all(map(queue.is_done, chain))


def test_what_is_done_is_not_done_again(tmp_path):
    queue, told = Queue(tmp_path / "queue", together=1), []
    chain = [counting(tmp_path / "file", 1)]
    for _ in range(2):
        queue.work([chain], 60.0, told.append)
    assert sum(line.startswith("file: done") for line in told) == 1


def test_a_job_that_fails_ends_its_chain_alone_and_its_log_says_why(tmp_path):
    queue, told = Queue(tmp_path, together=1), []
    fails = Job("fails", (sys.executable, "-c", "raise SystemExit('no such data')"))
    queue.work([[fails, counting(tmp_path / "after", 1)], [counting(tmp_path / "other", 1)]], 60.0, told.append)
    assert "no such data" in (tmp_path / "logs" / "fails.log").read_text()
    assert not (tmp_path / "after").exists()
    assert (tmp_path / "other").read_text() == "1"
    assert any(line.startswith("fails: failed") and "status 1" in line for line in told)


def test_chains_run_side_by_side(tmp_path):
    meet = """
import pathlib, sys, time
mine, other = map(pathlib.Path, sys.argv[1:])
mine.touch()
for _ in range(600):
    if other.exists():
        sys.exit()
    time.sleep(0.1)
sys.exit("alone")
"""
    paths = [tmp_path / "one", tmp_path / "other"]
    jobs = [Job(mine.name, (sys.executable, "-c", meet, str(mine), str(other))) for mine, other in (paths, paths[::-1])]
    queue = Queue(tmp_path / "queue", together=2)
    queue.work([[job] for job in jobs], 120.0, lambda line: None)
    assert all(map(queue.is_done, jobs))


def test_no_job_begins_when_the_time_is_over(tmp_path):
    started = time.monotonic()
    Queue(tmp_path, together=1).work([[counting(tmp_path / "file", 1000)]], 0.0, lambda line: None)
    assert time.monotonic() - started < 30
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("name", RUNS)
def test_every_run_is_a_training_and_all_that_is_measured_of_it(tmp_path, name):
    (chain,) = chains([name], tmp_path, "data", "CIFAR-10", ["--epochs", "3"])
    training = parse(chain[0].command[3:])
    assert (training.out, training.data, training.data_name) == (tmp_path / name, "data", "CIFAR-10")
    assert training.recipe.epochs == 3
    assert training.fsr == ("fsr" in name)
    judged = [job.name for job in chain[1:]]
    assert len(judged) == len(set(judged)) == 2 * (3 if training.fsr else 2)


def test_what_is_measured_are_attacks_that_exist():
    known = {*ASCENTS, *SEARCHES, "ensemble"}
    assert {attack for judged in JUDGED.values() for attack in judged.attacks} <= known


def test_a_run_that_has_begun_is_gone_on_with(checkpoint):
    (chain,) = chains(["at"], checkpoint.parent / "other", "data", "CIFAR-10", [])
    assert "--resume" not in chain[0].command
    link = checkpoint.parent / "gpu"
    link.mkdir(exist_ok=True)
    (link / "at").symlink_to(checkpoint)
    (chain,) = chains(["at"], link, "data", "CIFAR-10", ["--compile"])
    assert chain[0].command[-2:] == ("--resume", "--compile")
