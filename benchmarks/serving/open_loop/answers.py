"""What came of the requests of one open-loop run, from all generators together."""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.serving.cores import pinned
from benchmarks.serving.errors import BenchmarkError
from benchmarks.serving.open_loop.generator import BROKEN, UNANSWERED
from benchmarks.serving.open_loop.poisson import Times, dealt
from benchmarks.serving.pictures import Body
from benchmarks.serving.servers import ROOT

HEAD_START_SECONDS = 0.2


@dataclass(frozen=True)
class Answers:
    """Of n requests: seconds from the planned time to sending and to the answer, and the status (BROKEN: none)."""

    lateness: npt.NDArray[np.float64]
    latency: npt.NDArray[np.float64]
    status: npt.NDArray[np.int64]

    def milliseconds(self, percentile: float) -> float:
        """Latency of what was answered with 200."""
        accepted = self.latency[self.status == 200]
        if not len(accepted):
            raise BenchmarkError("the server answered no request with 200; its latency cannot be measured")
        return float(1000 * np.percentile(accepted, percentile))

    def share(self, *statuses: int) -> float:
        return float(np.isin(self.status, statuses).mean())

    @property
    def late_ms(self) -> float:
        """How late the generators were, 99th percentile: if much, they and not the server were the bottleneck."""
        return float(1000 * np.nanpercentile(self.lateness, 99))

    @property
    def broken(self) -> float:
        return self.share(BROKEN, UNANSWERED)


def drive_openly(
    port: int,
    path: str,
    bodies: Sequence[Body],
    times: Times,
    *,
    processes: int,
    cores: Sequence[int],
    headers: Mapping[str, str] | None = None,
) -> Answers:
    """Send the bodies in turn at those times (seconds), by so many processes."""
    if not len(times):
        raise BenchmarkError("no request would be sent in this time; run for more --open-loop-seconds")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, contextlib.ExitStack() as stack:
        generators = []
        for index, part in enumerate(dealt(times, processes)):
            own = Path(folder) / f"generator{index}"
            own.mkdir()
            np.save(own / "times.npy", part)
            for number, body in enumerate(bodies):
                (own / str(number)).write_bytes(request_bytes(path, body, headers or {}))
            command = [sys.executable, "-m", "benchmarks.serving.open_loop.generator", str(port), str(own)]
            process = stack.enter_context(_running(pinned(command, cores)))
            generators.append((process, own))
        for process, _ in generators:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise BenchmarkError("a load generator did not start; its message is above")
        start = time.monotonic() + HEAD_START_SECONDS
        for process, _ in generators:
            assert process.stdin is not None
            print(start, file=process.stdin, flush=True)
        for process, _ in generators:
            if process.wait() != 0:
                raise BenchmarkError("a load generator failed; its message is above")
        found = np.concatenate([np.load(own / "answers.npy") for _, own in generators])
    return Answers(found[:, 0], found[:, 1], found[:, 2].astype(np.int64))


def request_bytes(path: str, body: Body, headers: Mapping[str, str]) -> bytes:
    """A POST as it goes over the wire."""
    lines = {"Host": "127.0.0.1", **body.headers, **headers, "Content-Length": str(len(body.content))}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body.content


@contextlib.contextmanager
def _running(command: Sequence[str]) -> Iterator["subprocess.Popen[str]"]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()
