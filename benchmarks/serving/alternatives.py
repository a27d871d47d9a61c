"""The servers that are compared: how each starts and what it is asked."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.serving.errors import BenchmarkError
from benchmarks.serving.pictures import Encode, form, raw

PORT = "{port}"
"""Stands for the port in a command."""
PEERS = "benchmarks.serving.peers"

Answer = Any
"""The JSON of an answer."""


@dataclass(frozen=True)
class Alternative:
    """One worker that serves one model version."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    path: str = "/classify"
    ready_path: str | None = None
    """Answers 200 when requests may come; by default the first picture that is answered says so."""
    encode: Encode = raw
    ranked: Callable[[Answer], list[dict]] = field(default=lambda answer: answer["predictions"][0]["top_k"])
    """The likeliest classes of the picture, in an answer."""

    @property
    def is_ours(self) -> bool:
        return "FSR_MODEL" in self.environment


def this_server(version: Path, threads: int, name: str = "this server", **settings: str) -> Alternative:
    """`bentoml serve` in the project's folder; `settings` are FSR_* variables."""
    environment = {
        "FSR_MODELS": str(version.parent.parent.absolute()),
        "FSR_MODEL": version.parent.name,
        "FSR_THREADS": str(threads),
        "FSR_DEVICE": "cpu",
        "FSR_DRAIN_SECONDS": "0",
        **settings,
    }
    return Alternative(name, _bentoml("fsr_serve.service:FsrServe"), environment, ready_path="/readyz")


def peers(version: Path, threads: int) -> list[Alternative]:
    """BentoML's idiom, LitServe and the floor. Raises BenchmarkError where one is not installed."""
    if find_spec("litserve") is None:
        raise BenchmarkError("litserve is not installed; install it with: pip install '.[benchmarks]'")
    environment = {"BENCHMARK_MODEL": str(version.absolute()), "BENCHMARK_THREADS": str(threads)}
    floor = ("-m", "uvicorn", f"{PEERS}.floor:app", "--port", PORT, "--no-access-log", "--log-level", "warning")
    return [
        Alternative(
            "BentoML's idiom",
            _bentoml(f"{PEERS}.bentoml_idiom:Idiom"),
            environment,
            ready_path="/readyz",
            encode=form("images"),
            ranked=lambda answer: answer[0]["top_k"],
        ),
        Alternative(
            "LitServe",
            (sys.executable, "-m", f"{PEERS}.litserve_api", PORT),
            environment,
            path="/predict",
            ready_path="/health",
            encode=form("image"),
        ),
        Alternative("floor", (sys.executable, *floor), environment),
    ]


def _bentoml(service: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", PORT)
