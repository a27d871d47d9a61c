"""Long commands within a limit of time: stopped when it is over, gone on with in the next call."""

import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

GRACE_SECONDS = 30.0
"""From the interrupt to the kill; commands keep what they have and end sooner."""


@dataclass(frozen=True)
class Job:
    """A command that may be interrupted and, called again, goes on. Jobs of a folder differ in their names."""

    name: str
    command: tuple[str, ...]


Tell = Callable[[str], object]


@dataclass(frozen=True)
class Queue:
    """Chains of jobs. `folder` keeps which jobs are done, and what each wrote in logs/NAME.log."""

    folder: Path
    together: int
    """Chains that run at a time."""

    def work(self, chains: Sequence[Sequence[Job]], seconds: float, tell: Tell) -> None:
        """Do what is left, chain by chain, for at most `seconds`; a chain ends with its first job that fails."""
        until = time.monotonic() + seconds
        for name in ("logs", "done"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        left = deque(chains)
        with ThreadPoolExecutor(self.together) as pool:
            try:
                for worker in [pool.submit(self._work, left, until, tell) for _ in range(self.together)]:
                    worker.result()
            except BaseException:  # Ctrl-C stops the running jobs, and none is to take their place
                left.clear()
                raise

    def is_done(self, job: Job) -> bool:
        return (self.folder / "done" / job.name).exists()

    def _work(self, left: deque[Sequence[Job]], until: float, tell: Tell) -> None:
        while time.monotonic() < until:
            try:
                chain = left.popleft()
            except IndexError:
                return
            for job in chain:
                if not self.is_done(job) and not self._ended_well(job, until, tell):
                    break

    def _ended_well(self, job: Job, until: float, tell: Tell) -> bool:
        tell(f"{job.name}: {' '.join(job.command)}")
        started = time.monotonic()
        with (self.folder / "logs" / f"{job.name}.log").open("ab") as log:
            process = subprocess.Popen(job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
            try:
                status = process.wait(timeout=max(0.0, until - started))
            except subprocess.TimeoutExpired:
                _stop(process)
                tell(f"{job.name}: stopped, the time is over")
                return False
            finally:
                if process.poll() is None:
                    _stop(process)
        seconds = time.monotonic() - started
        if status != 0:
            tell(f"{job.name}: failed after {seconds:.0f} s, status {status}; see {log.name}")
            return False
        (self.folder / "done" / job.name).touch()
        tell(f"{job.name}: done in {seconds:.0f} s")
        return True


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
