"""What a run runs on: versions, commit and hardware, for the record."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from training.device import Device
from training.processes import Processes

PACKAGES = ("fsr-serve", "torch", "numpy", "datasets", "pillow")


def environment(device: Device, processes: Processes, compiled: bool = False) -> dict[str, Any]:
    """As JSON values; `commit` is None outside a checkout, and ends in + where files differ from it.

    The version of a package that is not installed, as ours where its files are only copied, is None.
    """
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "commit": _commit(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if device.is_cuda else None,
        "processes": processes.count,
        "threads": torch.get_num_threads(),
        "format": str(device.dtype).removeprefix("torch."),
        "compile": compiled,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"],  # noqa: S607
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
