"""python -m benchmarks.gpu: train and measure the paper's networks on a GPU, in parts as long as there is time for."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.gpu.queue import Queue
from benchmarks.gpu.runs import RUNS, chains
from benchmarks.gpu.status import status
from training.checkpoint import CheckpointError


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train and measure runs one after the other, for so many seconds. The same command goes on where it was."""

    data: str
    """Hugging Face id, or folder of parquet files or of images, with the splits train and test."""
    data_name: str = "CIFAR-10"
    """What the data is called in reports."""
    out: Path = Path("runs/gpu")
    """Folder of the run folders; it also keeps which jobs are done, and their logs."""
    only: tuple[str, ...] = ("at", "at-fsr", "strong", "strong-fsr")
    """Runs by name, in this order."""
    seconds: float = 3600.0
    """After which all is stopped; at most an epoch, or a batch of attacked images, is lost."""
    together: int = 1
    """Runs at a time on the GPU: one network of these does not fill a large one."""
    options: str = "--compile"
    """Options added to every training, in one word: `--options "--compile --epochs 30"`."""


def main() -> None:
    arguments = tyro.cli(Arguments, prog="python -m benchmarks.gpu")
    unknown = [name for name in arguments.only if name not in RUNS]
    if unknown:
        sys.exit(f"error: only has {', '.join(unknown)}; expected some of {', '.join(RUNS)}")
    if arguments.together < 1 or arguments.seconds <= 0:
        sys.exit(
            f"error: together is {arguments.together} and seconds {arguments.seconds}; expected 1 or more, above 0"
        )
    work = chains(arguments.only, arguments.out, arguments.data, arguments.data_name, arguments.options.split())
    queue = Queue(arguments.out, arguments.together)
    try:
        queue.work(list(work), arguments.seconds, lambda line: print(line, flush=True))
        report = "\n".join(status(arguments.out, arguments.only))
    except CheckpointError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; the same command goes on from here")
    (arguments.out / "status.md").write_text(report + "\n")
    print(f"\n{report}")


if __name__ == "__main__":
    main()
