"""Which images of a checkpoint keep their label under an attack: batch by batch, over any number of processes.

A batch depends on nothing but its own images: batches may be done in any order, and go on after an interruption.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import NamedTuple

import torch

from training.accuracy import correct_under
from training.attacks import Attack
from training.checkpoint import RunFolder, Weights
from training.data import ImageData
from training.device import Device, pick_device
from training.evaluation.changes import CHANGES, correct_under_change
from training.evaluation.flags import Booleans, FlagsFile
from training.evaluation.passed_on import passing_on
from training.evaluation.protocol import Budget
from training.evaluation.results import weights_sha256
from training.evaluation.suite import CheckpointAttack, attack_named
from training.models import FSRNet
from training.models.separated import FeatureName
from training.source import DataError


@dataclass(frozen=True)
class Network:
    """A checkpoint's network, as small enough values to be sent to another process."""

    checkpoint: Path
    weights: Weights
    weights_sha256: str
    """Of the weights' file: weights that were replaced since are another network."""
    feature: FeatureName = "output"
    """What its FSR modules pass on."""
    is_compiled: bool = False
    """By torch.compile."""


@dataclass(frozen=True)
class Job:
    """An attack on a network, or a change of the images it is shown."""

    network: Network
    attack: CheckpointAttack | None
    """None: images as they are, or changed."""
    epsilon: float
    seed: int
    budget: Budget
    source: Network | None = None
    """What transfer attacks are crafted on."""
    change: str | None = None
    """One of `CHANGES`, instead of an attack."""


class Flags(NamedTuple):
    """Of one batch, and the seconds it took."""

    part: slice
    correct: Booleans
    seconds: float


def measure(
    job: Job, data: ImageData, flags: FlagsFile, *, batch: int, processes: int, progress: Callable[[int], object]
) -> None:
    """Attack the images whose flags are not known, and write the flags of each batch when it is done.

    Several processes share the cores and take the GPUs in turn. `progress` is told the images of each batch.
    """
    parts = list(flags.unknown(batch))
    batches = ((part, data.subset(torch.arange(part.start, part.stop))) for part in parts)
    for found in _alone(job, batches) if min(processes, len(parts)) < 2 else _together(job, batches, processes):
        flags.write(*found)
        progress(len(found.correct))


Batches = Iterator[tuple[slice, ImageData]]


def _alone(job: Job, batches: Batches) -> Iterator[Flags]:
    return (_flags(job, *batch) for batch in batches)


def _together(job: Job, batches: Batches, processes: int) -> Iterator[Flags]:
    # spawned: a forked process would inherit torch's threads and CUDA's state
    context = multiprocessing.get_context("spawn")
    numbers = context.SimpleQueue()
    for number in range(processes):
        numbers.put(number)
    threads = max(1, (os.cpu_count() or 1) // processes)
    with ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(numbers, threads)) as executor:
        futures: list[Future[Flags]] = [executor.submit(_flags, job, *batch) for batch in batches]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise DataError(
                "a process that measures was killed, perhaps for its memory; the same command goes on, with fewer "
                "--processes or a smaller --batch"
            ) from error
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def _begin(numbers: "SimpleQueue[int]", threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a word
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(numbers.get() % torch.cuda.device_count())


def _flags(job: Job, part: slice, images: ImageData) -> Flags:
    started = time.perf_counter()
    model, device = _opened(job.network)
    if job.change is None:
        attack = _attack(job, images.shape, part.start)
        correct = correct_under(attack, model, images, device, batch=len(images))
    else:
        correct = correct_under_change(CHANGES[job.change], model, images, device, seed=job.seed, first=part.start)
    return Flags(part, correct.numpy(), time.perf_counter() - started)


def _attack(job: Job, image_shape: tuple[int, int], first: int) -> Attack | None:
    if job.attack is None:
        return None
    return attack_named(
        job.attack,
        epsilon=job.epsilon,
        seed=job.seed,
        image_shape=image_shape,
        budget=job.budget,
        first=first,
        source=_opened(job.source)[0] if job.source else None,
    )


@lru_cache(maxsize=2)  # a process does many batches of one job
def _opened(network: Network) -> tuple[FSRNet, Device]:
    if weights_sha256(network.checkpoint, network.weights) != network.weights_sha256:
        raise DataError(
            f"the {network.weights} weights of {network.checkpoint} were replaced while they were measured; "
            "measure anew when its training is over"
        )
    model, device = RunFolder(network.checkpoint).load_model(network.weights).requires_grad_(False), pick_device()
    if network.feature != "output":
        model = passing_on(model, network.feature)
    device.place_model(model)
    if network.is_compiled:
        model.compile(dynamic=True)  # attacks go on with fewer and fewer images
    return model, device
