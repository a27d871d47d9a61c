"""How many cores this process may use: its affinity, less what a CPU limit of a container or a service takes."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def allowed_cores() -> int:
    """Those that this process may run on."""
    has_affinity = hasattr(os, "sched_getaffinity")  # not everywhere
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def usable_cores(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Those that it has time for, at least one: a limit of 1.5 CPUs counts as 2 cores."""
    return max(1, min([allowed_cores(), *map(math.ceil, _limits(cgroups, membership))]))


def _limits(cgroups: Path, membership: Path) -> Iterator[float]:
    """CPUs that the control groups around this process may use, of version 2 and 1, where they are limited."""
    with suppress(OSError):
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            group = cgroups / "cpu" if controllers else cgroups
            for part in ("", *path.strip("/").split("/")):
                group = group / part
                yield from _limit(group)


def _limit(group: Path) -> Iterator[float]:
    """Version 2 has one file, `max 100000` without a limit; version 1 has two, and -1."""
    with suppress(OSError, ValueError):
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(quota) > 0:
            yield int(quota) / int(period)
