"""A closed loop of load: `wrk` with a fixed number of connections, each sending as soon as it is answered."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.cores import pinned
from benchmarks.serving.errors import BenchmarkError
from benchmarks.serving.pictures import Body

SCRIPT = Path(__file__).with_name("load.lua")


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw; `refused` have another status than 2xx or 3xx, `broken` no answer at all."""

    requests: int
    seconds: float
    refused: int
    broken: int
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def check_wrk() -> None:
    """Raise BenchmarkError where wrk is missing."""
    if shutil.which("wrk") is None:
        raise BenchmarkError("wrk is not installed; install it with: apt-get install wrk")


def drive(
    port: int, path: str, bodies: Sequence[Body], *, connections: int, seconds: float, cores: Sequence[int]
) -> Load:
    """Send the bodies in turn for that long. Raises BenchmarkError unless all is answered with 200."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        for index, body in enumerate(bodies):
            (Path(folder) / str(index)).write_bytes(body.content)
        threads = min(len(cores), connections)
        headers = [text for header in bodies[0].headers.items() for text in header]
        options = [f"-t{threads}", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
        url = f"http://127.0.0.1:{port}{path}"
        command = ["wrk", *options, "-s", str(SCRIPT), url, "--", folder, str(len(bodies)), *headers]
        done = subprocess.run(pinned(command, cores), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"wrk failed at {url}: {done.stderr.strip() or done.stdout.strip()}")
    load = parse(done.stdout)
    if not (load.requests or load.broken):
        raise BenchmarkError(f"{url} answered nothing within {seconds:g} seconds; run for more --seconds")
    if load.refused or load.broken:
        raise BenchmarkError(
            f"of {load.requests} requests to {url}, {load.refused} were refused and {load.broken} broken; expected "
            "every one answered with 200. Try fewer --connections"
        )
    return load


def parse(output: str) -> Load:
    """The line of JSON that the script writes. Raises BenchmarkError where there is none."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            return Load(**json.loads(line))
    raise BenchmarkError(f"wrk wrote no summary, only: {output.strip()[-300:]!r}")
