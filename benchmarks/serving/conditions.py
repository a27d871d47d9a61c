"""What all measurements of a run share."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.cores import Cores


@dataclass(frozen=True)
class Conditions:
    """`threads` are those of one inference; models are made in `folder`."""

    cores: Cores
    threads: int
    connections: int
    rounds: int
    seconds: float
    folder: Path
