"""python -m benchmarks.training: what a step of adversarial training costs, against the paper's way written out.

Each row times two calls in pairs, on random images; see `training.pairs`.
"""

import platform
import statistics
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import tyro

from benchmarks.training_steps import CLASSES, PAPER, AsWritten
from training.checkpoint import ModelConfig
from training.device import Device, pick_device
from training.environment import environment
from training.evaluation.cost import size_of
from training.evaluation.training_step import TrainingStep
from training.pairs import Measured, Pair, measured, quartiles, timed
from training.processes import ALONE

EPOCH_IMAGES = 47_500
"""Of CIFAR-10 without the held-out ones."""
INSTRUCTIONS = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_bf16")
MATRIX_SIDE = 8192


@dataclass(frozen=True)
class Arguments:
    """Time a step of ResNet-18 with FSR under the recipe `paper` (PGD-10) against other ways to take it."""

    pairs: int = 20
    """Alternated pairs per row."""
    batch: int = 128
    width: int = 64
    """Of ResNet-18; 64 is the paper's."""
    threads: int | None = None
    """All cores by default."""


class Row(NamedTuple):
    """A pair, and the ratio that is wanted."""

    pair: Pair
    wanted: str


def main() -> None:
    arguments = tyro.cli(Arguments, prog="python -m benchmarks.training")
    for name in ("pairs", "batch", "width"):
        if getattr(arguments, name) < 1:
            sys.exit(f"error: {name} is {getattr(arguments, name)}; expected 1 or more")
    warnings.filterwarnings("ignore")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    for line in report(arguments):
        print(line, flush=True)


def report(arguments: Arguments) -> Iterator[str]:
    """Lines of Markdown, each as soon as it is measured."""
    device = pick_device()
    noted = environment(device, ALONE)
    yield f"{noted['gpu'] or noted['processor']} ({', '.join(instructions())}), {torch.get_num_threads()} threads,"
    yield f"torch {torch.__version__}, Python {platform.python_version()}, ours in {noted['format']};"
    yield f"ResNet-18 of width {arguments.width}, PGD-10, batch {arguments.batch}, {arguments.pairs} alternated pairs"
    yield "per row. Times are of whole training steps, but for those of the input pipeline."
    yield ""
    yield "| candidate / reference | ratio of times: median (quartiles) | wanted | images/s | of the reference |"
    yield "|---|---|---|---|---|"
    ours = our_step(arguments, device)
    for row in rows(arguments, ours, device):
        yield line(row, measured(row.pair, arguments.pairs, device.wait), arguments.batch)
    yield ""
    yield from cuda_rows(arguments, ours, device)


def our_step(arguments: Arguments, device: Device, *, fsr: bool = True) -> TrainingStep:
    torch.manual_seed(0)
    model = ModelConfig(num_classes=CLASSES, fsr=fsr, width=arguments.width)
    return TrainingStep(model, arguments.batch, device)


def rows(arguments: Arguments, ours: TrainingStep, device: Device) -> list[Row]:
    width, batch = arguments.width, arguments.batch
    written = AsWritten(width, batch, device.torch_device)
    plain = our_step(arguments, device, fsr=False)
    return [
        Row(Pair("the paper's way, float32 NCHW / ours", written.step, ours.take), speedup_wanted(device)),
        Row(Pair("AT+FSR / AT", ours.take, plain.take), "<= 1.10 on a CPU"),
        Row(Pair("input pipeline / step", ours.read, ours.take), "<= 0.03"),
    ]


def speedup_wanted(device: Device) -> str:
    if device.is_cuda or "amx_bf16" in instructions():
        return ">= 3.3"
    return f"none: no AMX, only {', '.join(instructions())}"


def instructions() -> list[str]:
    """Of `INSTRUCTIONS` those that this processor has."""
    capabilities = torch.cpu.get_capabilities()
    return [name for name in INSTRUCTIONS if capabilities.get(name)]


def cuda_rows(arguments: Arguments, ours: TrainingStep, device: Device) -> Iterator[str]:
    """Speed on a GPU, and its share of the bfloat16 matrix peak measured there and then."""
    yield "| on a GPU | |"
    yield "|---|---|"
    if not device.is_cuda:
        yield "| images/s, epoch seconds, share of the bf16 matrix peak | not run: no CUDA device |"
        return
    low, seconds, high = quartiles([timed(ours.take, device.wait) for _ in range(arguments.pairs)])
    images_per_second = arguments.batch / seconds
    peak, forward = matrix_peak(device), size_of(ours.state.model).flops
    passes = 3 * (PAPER.pgd_steps + 1)  # forward, gradient of the features, gradient of the weights
    needed = 2 * PAPER.pgd_steps + 3  # an attack needs no gradient of the weights
    share, share_needed = (n * forward * images_per_second / peak for n in (passes, needed))
    slowest, fastest = arguments.batch / high, arguments.batch / low
    yield f"| images/s (quartiles) | {images_per_second:.0f} ({slowest:.0f} - {fastest:.0f}) |"
    yield f"| seconds of an epoch of {EPOCH_IMAGES} images | {EPOCH_IMAGES / images_per_second:.1f} |"
    yield f"| bf16 matrix peak, side {MATRIX_SIDE}, TFLOP/s | {peak / 1e12:.0f} |"
    yield f"| share of it: {passes} x {forward / 1e9:.2f} GFLOP per image | {share:.1%} |"
    yield f"| the same, {needed} passes without the attack's gradients of weights | {share_needed:.1%} |"


def matrix_peak(device: Device) -> float:
    """FLOP/s of a bfloat16 product of two square matrices, the median of 20."""
    left, right = torch.randn(2, MATRIX_SIDE, MATRIX_SIDE, device=device.torch_device, dtype=torch.bfloat16)
    timed(lambda: left @ right, device.wait)
    return 2 * MATRIX_SIDE**3 / statistics.median(timed(lambda: left @ right, device.wait) for _ in range(20))


def line(row: Row, found: Measured, batch: int) -> str:
    low, median, high = found.ratio
    speeds = " | ".join(f"{batch / seconds:.1f}" for seconds in found.medians)
    return f"| {row.pair.name} | {median:.3f} ({low:.3f} - {high:.3f}) | {row.wanted} | {speeds} |"


if __name__ == "__main__":
    main()
