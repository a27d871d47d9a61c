"""The command python -m training.evaluation cost: size, time and memory of networks with and without FSR."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import tyro

from training.device import Device, pick_device
from training.environment import environment
from training.evaluation.command_line import tell
from training.evaluation.cost import TimedNetwork, peak_bytes, size_of_network
from training.evaluation.paper import Asked, paper_figures
from training.models import BACKBONES
from training.pairs import Pair, measured, quartiles
from training.processes import ALONE

MEBIBYTE = 2**20
ModelName = Literal["resnet18", "vgg16", "wide_resnet34_10", "resnet50"]


class CostError(ValueError):
    """An argument makes no sense; the message says which and the fix."""


@dataclass(frozen=True)
class Arguments:
    """Count and time networks with FSR and without, beside Table 7 and section 4.4 of the paper.

    The two take turns, so that a busy machine slows both; their ratio travels, absolute times do not.
    """

    model: tuple[ModelName, ...] = ("resnet18", "vgg16", "wide_resnet34_10")
    width: int | None = None
    """Channels of the first stage of what is timed; the paper's by default."""
    batch: int = 128
    """Images per batch."""
    pairs: int = 10
    """Alternated pairs per row of the times."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA where there is one."""
    threads: int | None = None
    """Of the CPU; all cores by default."""
    times: bool = True
    """Measure time and memory too, not only size."""


def main(args: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(Arguments, prog="python -m training.evaluation cost", args=args)
    tell(lambda: report(arguments), CostError)


def report(arguments: Arguments) -> Iterator[str]:
    """Lines of Markdown, each as soon as it is known. Raises CostError."""
    for name in ("batch", "pairs", "width", "threads"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise CostError(f"{name} is {value}; expected 1 or more")
    device = chosen(arguments.device)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    yield from size_lines(arguments)
    if arguments.times:
        yield ""
        yield from time_lines(arguments, device)


def chosen(name: str) -> Device:
    """Raises CostError for `cuda` where there is none."""
    device = pick_device()
    if name == "cuda" and not device.is_cuda:
        raise CostError(
            "device is cuda, and torch finds none here; choose --device cpu, or install a CUDA build of torch"
        )
    return Device(torch.device("cpu"), torch.float32) if name == "cpu" and device.is_cuda else device


def size_lines(arguments: Arguments) -> Iterator[str]:
    """Table 7 for the networks asked for, at the paper's width and at the width asked for."""
    paper = paper_figures()
    yield "Parameters, and FLOPs of a forward pass over one 32x32 image: convolutions and matrix products, two per"
    yield "multiply-add. Table 7 counts batch norm, biases and pooling too."
    yield ""
    yield "| network | width | method | million parameters | paper | GFLOP | paper |"
    yield "|---|---|---|---|---|---|---|"
    for name in arguments.model:
        widths = dict.fromkeys((BACKBONES[name].width, arguments.width or BACKBONES[name].width))
        for width in widths:
            for method in ("vanilla", "FSR"):
                size = size_of_network(name, fsr=method == "FSR", width=width)
                asked = [Asked("7", "cifar10", name, method, measure) for measure in ("params_millions", "flops_giga")]
                parameters, flops = (paper.get(one, "-") if width == BACKBONES[name].width else "-" for one in asked)
                yield (
                    f"| {name} | {width} | {method} | {size.parameters / 1e6:.2f} | {parameters} "
                    f"| {size.flops / 1e9:.4f} | {flops} |"
                )


class Timed(NamedTuple):
    """A row of the times: a method of `TimedNetwork`, its batch, and what it takes relative to plain in section 4.4."""

    name: str
    call: str
    batch: int
    paper: str = "-"


def time_lines(arguments: Arguments, device: Device) -> Iterator[str]:
    noted = environment(device, ALONE)
    yield f"{noted['gpu'] or noted['processor']}, {torch.get_num_threads()} threads, {os.cpu_count()} cores, torch"
    yield f"{torch.__version__}; training in {noted['format']}, the rest in float32; {arguments.pairs} alternated pairs"
    yield "per row: median (quartiles). Peak memory is the GPU's, or that of a process that does this alone, in which"
    yield "Python and torch take part."
    yield ""
    yield "| network | what | batch | plain, ms | FSR, ms | FSR / plain | paper | plain, MiB | FSR, MiB |"
    yield "|---|---|---|---|---|---|---|---|---|"
    wanted = [(name, row) for name in arguments.model for row in rows(name, arguments)]
    # before this process grows; see peak_bytes
    peaks = [
        [peak_bytes(network, row.call, row.batch, device) // MEBIBYTE for network in networks(name, arguments, device)]
        for name, row in wanted
    ]
    for (name, row), (plain_peak, fsr_peak) in zip(wanted, peaks, strict=True):
        plain, fsr = (getattr(network, row.call)(row.batch) for network in networks(name, arguments, device))
        found = measured(Pair(f"{name}, {row.name}", fsr, plain), arguments.pairs, device.wait)
        yield (
            f"| {name} | {row.name} | {row.batch} | {spread(milliseconds(found.reference), 1)} "
            f"| {spread(milliseconds(found.candidate), 1)} | {spread(found.ratio, 3)} | {row.paper} "
            f"| {plain_peak:,} | {fsr_peak:,} |"
        )


def rows(name: str, arguments: Arguments) -> list[Timed]:
    batch = arguments.batch
    return [
        Timed("forward pass", "forward_pass", 1),
        Timed("forward pass", "forward_pass", batch),
        Timed("training step, PGD-10", "training_step", batch, paper_ratio(name, "train_epoch_seconds")),
        Timed("PGD-20", "pgd20", batch, paper_ratio(name, "pgd20_evaluation_seconds")),
    ]


def paper_ratio(name: str, measure: str) -> str:
    """How much longer section 4.4 has it take with FSR."""
    paper = paper_figures()
    plain, fsr = (paper.get(Asked("4.4 (text)", "cifar10", name, method, measure)) for method in ("AT", "AT+FSR"))
    return "-" if plain is None or fsr is None else f"{float(fsr) / float(plain):.3f}"


def networks(name: str, arguments: Arguments, device: Device) -> list[TimedNetwork]:
    """Without and with FSR."""
    return [TimedNetwork(name, fsr=fsr, width=arguments.width, device=device) for fsr in (False, True)]


def milliseconds(seconds: list[float]) -> tuple[float, float, float]:
    """Their quartiles."""
    return quartiles([1000 * one for one in seconds])


def spread(of: tuple[float, float, float], decimals: int) -> str:
    low, median, high = of
    return f"{median:.{decimals}f} ({low:.{decimals}f} - {high:.{decimals}f})"
