"""A bare onnxruntime loop: how fast the session alone is. Run as a program it is that loop, in a process of its own.

The program's arguments are a model file and a number of threads. It reads lines "batch seconds" and answers each with
a line of JSON: images, seconds of wall and of CPU time.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime

from benchmarks.serving.cores import Cores, pinned
from benchmarks.serving.errors import BenchmarkError
from benchmarks.serving.servers import ROOT
from fsr_serve.session import start_onnxruntime


class Loop(NamedTuple):
    """What one run of the loop did."""

    images: int
    seconds: float
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        return self.images / self.seconds

    @property
    def cpu_ms_per_image(self) -> float:
        return 1000 * self.cpu_seconds / self.images


class BareLoop:
    """The program, running and waiting."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, batch: int, seconds: float) -> Loop:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(batch, seconds, file=self._process.stdin, flush=True)
            return Loop(**json.loads(self._process.stdout.readline()))
        except (OSError, ValueError) as error:
            raise BenchmarkError("the bare onnxruntime loop ended; its message is above") from error

    def best_batch(self, seconds: float, batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)) -> int:
        """The batch size with the most images per second."""
        return max(batches, key=lambda batch: self.run(batch, seconds).per_second)


@contextlib.contextmanager
def bare_loop(model: Path, threads: int, cores: Cores) -> Iterator[BareLoop]:
    command = [sys.executable, "-m", "benchmarks.serving.bare_loop", str(model.absolute()), str(threads)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        pinned(command, cores.server), cwd=ROOT, stdin=pipe, stdout=pipe, text=True, start_new_session=True
    ) as process:
        try:
            yield BareLoop(process)
        finally:
            process.kill()


def main(model: str, threads: str) -> None:
    session = start_onnxruntime(Path(model), device="cpu", threads=int(threads))
    shape = session.get_inputs()[0].shape[1:]
    for line in sys.stdin:
        batch, seconds = line.split()
        images = np.random.default_rng(0).random((int(batch), *shape), dtype=np.float32)
        print(json.dumps(_loop(session, images, float(seconds))._asdict()), flush=True)


def _loop(session: onnxruntime.InferenceSession, images: np.ndarray, seconds: float) -> Loop:
    session.run(["logits"], {"images": images})  # the first of a size pays for setting it up
    started, cpu_started, runs = time.perf_counter(), time.process_time(), 0
    while (passed := time.perf_counter() - started) < seconds or not runs:
        session.run(["logits"], {"images": images})
        runs += 1
    return Loop(runs * len(images), passed, time.process_time() - cpu_started)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
