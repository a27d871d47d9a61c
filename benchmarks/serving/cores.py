"""Who computes where: servers and bare loops on some cores, the load on the others."""

import os
import shutil
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.serving.errors import BenchmarkError


class Cores(NamedTuple):
    """Numbers of the cores; the two share all of them where the servers are to have every core."""

    server: tuple[int, ...]
    load: tuple[int, ...]

    @property
    def description(self) -> str:
        if self.server == self.load:
            return f"servers and load share cores {_list(self.server)}"
        return f"servers and bare loops on cores {_list(self.server)}, load on {_list(self.load)}"


def share_cores(available: Sequence[int], server_cores: int | None) -> Cores:
    """By default a quarter of the cores, at least one, makes the load. Raises BenchmarkError for too many."""
    count = len(available) - max(1, len(available) // 4) if server_cores is None else server_cores
    count = max(1, count)
    if count > len(available):
        raise BenchmarkError(f"--server-cores is {count}; expected at most {len(available)}, the cores there are")
    server, rest = tuple(available[:count]), tuple(available[count:])
    return Cores(server, rest or server)


def pinned(command: Sequence[str], cores: Sequence[int]) -> list[str]:
    """The command, kept on these cores. Raises BenchmarkError where taskset is missing."""
    if len(cores) == len(os.sched_getaffinity(0)):
        return list(command)
    if shutil.which("taskset") is None:
        raise BenchmarkError("taskset is not installed; install it with: apt-get install util-linux")
    return ["taskset", "--cpu-list", _list(cores), *command]


def _list(cores: Sequence[int]) -> str:
    return ",".join(map(str, cores))
