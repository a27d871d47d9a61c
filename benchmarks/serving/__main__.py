"""python -m benchmarks.serving: this server beside its peers, in one run on one machine."""

import contextlib
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import psutil
import tyro

from benchmarks.serving.conditions import Conditions
from benchmarks.serving.cores import share_cores
from benchmarks.serving.errors import BenchmarkError
from benchmarks.serving.rows import HEADER, Row
from benchmarks.serving.wrk import check_wrk

Part = Literal["near-free", "width-64", "shipped", "bf16", "photograph", "open-loop"]
PARTS: tuple[Part, ...] = ("near-free", "width-64", "shipped", "bf16", "photograph", "open-loop")
PACKAGES = ("bentoml", "litserve", "starlette", "uvicorn", "uvloop", "httptools", "onnxruntime-gpu", "onnxruntime")


@dataclass(frozen=True)
class Arguments:
    """Compare this server with BentoML's idiom, LitServe and a bare Starlette app: one worker each, the same pictures.

    Answers are checked equal before anything is timed. The alternatives take turns in every round while the others
    are stopped; ratios are of the same round. Needs wrk (apt-get install wrk) and the extra `benchmarks`. Rows go to
    stdout as Markdown, progress to stderr.
    """

    only: tuple[Part, ...] = PARTS
    """near-free: what the server costs. width-64, shipped: real models, also beside a bare onnxruntime loop. bf16:
    OpenVINO beside onnxruntime. photograph: JPEGs decoded at reduced scale. open-loop: latency under Poisson load."""
    rounds: int = 5
    """Of the closed loops."""
    seconds: float = 10
    """Of each closed loop; whole ones."""
    connections: int = 32
    """Of each closed loop."""
    server_cores: int | None = None
    """Cores for servers and bare loops, the others make the load; by default three quarters, at least one."""
    threads: int | None = None
    """Of one inference, in every server and in the bare loops; by default one per server core."""
    open_loop_runs: int = 3
    open_loop_seconds: float = 60
    """Of each load in each run."""
    generators: int = 2
    """Processes that make the open-loop load."""
    deadline_ms: int = 1000
    """X-Request-Timeout-Ms under overload."""
    json: Path | None = None
    """File for all rows, with the value of every round."""


def main() -> None:
    arguments = tyro.cli(Arguments, prog="python -m benchmarks.serving")
    rows: list[Row] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the servers must be stopped
    try:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            conditions = _conditions(arguments, Path(folder))
            how = f"{_machine()}\n\n{_how(arguments, conditions)}"
            print(f"{how}\n\n{HEADER}", flush=True)
            for row in _measured(arguments, conditions):
                rows.append(row)
                print(row.markdown, flush=True)
    except (BenchmarkError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped")
    finally:
        if arguments.json is not None and rows:
            content = {"how": how, "rows": [row.json for row in rows]}
            arguments.json.write_text(json.dumps(content, indent=1) + "\n")


def _conditions(arguments: Arguments, folder: Path) -> Conditions:
    """Raises BenchmarkError for a tool that is missing or a value out of range."""
    for name in ("rounds", "connections", "open_loop_runs", "generators", "deadline_ms"):
        if getattr(arguments, name) < 1:
            raise BenchmarkError(f"{name.replace('_', '-')} is {getattr(arguments, name)}; expected at least 1")
    if min(arguments.seconds, arguments.open_loop_seconds) < 1:
        raise BenchmarkError("--seconds and --open-loop-seconds must be at least 1")
    check_wrk()
    cores = share_cores(sorted(os.sched_getaffinity(0)), arguments.server_cores)
    return Conditions(
        cores=cores,
        threads=arguments.threads or len(cores.server),
        connections=arguments.connections,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        folder=folder,
    )


def _measured(arguments: Arguments, conditions: Conditions) -> Iterator[Row]:
    for part in PARTS:
        if part in arguments.only:
            yield from _part(part, arguments)(conditions)


def _part(part: Part, arguments: Arguments) -> Callable[[Conditions], Iterator[Row]]:
    from benchmarks.serving import closed_loop, variants
    from benchmarks.serving.open_loop import latency

    open_loop = partial(
        latency.open_loop_rows,
        runs=arguments.open_loop_runs,
        processes=arguments.generators,
        deadline_ms=arguments.deadline_ms,
        seconds=arguments.open_loop_seconds,
    )
    return {
        "near-free": closed_loop.near_free_rows,
        "width-64": closed_loop.width_64_rows,
        "shipped": closed_loop.shipped_rows,
        "bf16": variants.bf16_rows,
        "photograph": variants.photograph_rows,
        "open-loop": open_loop,
    }[part]


def _machine() -> str:
    """Processor and versions."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    busy = psutil.cpu_percent(interval=1)
    return f"{model}, {os.cpu_count()} cores, {busy:.0f} % busy before the start. {', '.join(found)}"


def _how(arguments: Arguments, conditions: Conditions) -> str:
    return (
        f"{conditions.cores.description}; {conditions.threads} threads of inference. Closed loops: {arguments.rounds} "
        f"rounds of {arguments.seconds:g} s. Open loops: {arguments.open_loop_runs} runs of "
        f"{arguments.open_loop_seconds:g} s, {arguments.generators} generators"
    )


if __name__ == "__main__":
    main()
