"""How many threads are started: as many as there is CPU time for."""

import os

import pytest

from fsr_serve.cores import usable_cores
from fsr_serve.settings import Settings


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def cores_in(folder, line, files):
    """What is found in the control groups `files` by a process with this line in /proc/self/cgroup."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    membership = folder / "membership"
    membership.write_text(f"3:memory:/elsewhere\n{line}\n")
    return usable_cores(folder, membership)


@pytest.mark.parametrize(
    ("line", "files", "cores"),
    [
        ("0::/", {}, 8),
        ("0::/", {"cpu.max": "max 100000\n"}, 8),
        ("0::/", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/", {"cpu.max": "6400000 100000\n"}, 8),
        ("0::/pod/me", {"pod/cpu.max": "300000 100000\n", "pod/me/cpu.max": "max 100000\n"}, 3),
        ("0::/pod/me", {"pod/me/cpu.max": "rubbish"}, 8),
        ("4:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ("4:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_a_limit_on_cpu_time_limits_the_cores(tmp_path, line, files, cores):
    assert cores_in(tmp_path, line, files) == cores


def test_without_control_groups_the_affinity_counts(tmp_path):
    assert usable_cores(tmp_path, tmp_path / "none") == 8


def test_the_session_has_all_cores_unless_time_or_workers_limit_it(monkeypatch):
    def threads(usable, **settings):
        monkeypatch.setattr("fsr_serve.settings.usable_cores", lambda: usable)
        return Settings(**settings).session_threads

    assert threads(8) is None
    assert threads(3) == 3
    assert threads(8, workers=2) == 4
    assert threads(3, threads=5) == 5
