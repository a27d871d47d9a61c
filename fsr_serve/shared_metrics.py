"""Metrics of several processes as one: each counts in files of its own, and a scrape adds them up.

The files are named by a worker's place, so what a worker that died had counted goes on with the one that takes its
place, and there are never more files than there were workers at once.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, values
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector

from fsr_serve.errors import StartupError
from fsr_serve.mapped_value import mapped_values
from fsr_serve.workers import Worker

FILE_BYTES = 1 << 18
"""Of each kind of metric; ours need a fifth of it."""

LIVE_GAUGE = "gauge_livesum"

PAGE_BYTES, TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


def share_metrics(worker: Worker) -> CollectorRegistry:
    """Let this process count in files from now on, and give what is to be scraped. Call before a metric is made.

    Room on disk is taken at once: a write into a mapped file without room kills the process. Raises StartupError
    when there is none.
    """
    for kind in ("counter", "histogram", LIVE_GAUGE):
        file = worker.folder / f"{kind}_{worker.number}.db"
        try:
            _reserve(file)
        except OSError as error:
            raise StartupError(
                f"{file} cannot have {FILE_BYTES} bytes ({error.strerror}), which metrics need; free room in "
                f"{worker.folder.parent}, or name another folder with TMPDIR"
            ) from error
    values.ValueClass = mapped_values(worker.folder, worker.number)
    scraped = CollectorRegistry()
    scraped.register(_Files(worker))
    return scraped


def _reserve(file: Path) -> None:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, FILE_BYTES)
        if file.name.startswith(LIVE_GAUGE):
            os.pwrite(descriptor, bytes(FILE_BYTES), 0)  # of the worker before, in whose queue nothing waits any more
    finally:
        os.close(descriptor)


class _Files:
    """Counters and histograms of all workers that ever were, gauges of those that live."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def collect(self) -> Iterable[Metric]:
        files = [file for file in self._worker.folder.glob("*.db") if self._counts(file)]
        merged: Iterable[Metric] = MultiProcessCollector.merge(map(str, files))  # type: ignore[no-untyped-call]
        return merged

    def _counts(self, file: Path) -> bool:
        kind, _, place = file.stem.rpartition("_")
        return kind != LIVE_GAUGE or self._worker.is_alive(int(place))


class Processes:
    """Memory, CPU time and open files of each living worker, which has none of its own series otherwise."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def collect(self) -> Iterable[Metric]:
        memory = GaugeMetricFamily("fsr_process_resident_memory_bytes", "Of a worker.", labels=["worker"])
        seconds = CounterMetricFamily("fsr_process_cpu_seconds", "Of a worker since its start.", labels=["worker"])
        files = GaugeMetricFamily("fsr_process_open_fds", "Of a worker.", labels=["worker"])
        for number, report in self._worker.reports().items():
            with contextlib.suppress(OSError):  # it ended meanwhile, or there is no /proc
                process = Path("/proc", str(report.pid if report else None))
                # the name in brackets may hold anything; user and system time are fields 14 and 15
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                memory.add_metric([str(number)], int(fields[21]) * PAGE_BYTES)
                seconds.add_metric([str(number)], (int(fields[11]) + int(fields[12])) / TICKS)
                files.add_metric([str(number)], len(os.listdir(process / "fd")))
        return [memory, seconds, files]


class ModelInfo:
    """fsr_model_info, from what the living workers report: no label stays behind when versions change."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def collect(self) -> Iterable[Metric]:
        names = ("model", "version", "sha256", "runtime", "device", "precision")
        family = GaugeMetricFamily("fsr_model_info", "Workers that serve this model version.", labels=names)
        counts: dict[tuple[str, ...], int] = {}
        for report in self._worker.reports().values():
            if report is not None:
                labels = tuple(str(getattr(report, name)) for name in names)
                counts[labels] = counts.get(labels, 0) + 1
        for labels, count in counts.items():
            family.add_metric(labels, count)
        return [family]
