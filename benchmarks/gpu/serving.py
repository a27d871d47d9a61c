"""python -m benchmarks.gpu.serving: ways to run the network in onnxruntime on a GPU, against torch with CUDA graphs."""

import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import tyro

from benchmarks.deployment import evidence_graph
from benchmarks.gpu.sessions import Call, ProviderError, Way, in_onnxruntime, in_torch
from export.folding import fold_batch_norm
from export.graph import restricted, write_graphs
from export.precision import to_fp16
from training.models import FSRNet, create_model
from training.pairs import quartiles, timed

CLASSES, SIDE = 10, 32
CLOSE = {"fp32": 1e-3, "TF32": 5e-2, "fp16": 5e-2}
"""How far logits may lie from those of float32 on the CPU, as a share of their largest."""
EXACT, FAST = {"use_tf32": "0"}, {"use_tf32": "1"}
NHWC, GRAPH = {"prefer_nhwc": "1"}, {"enable_cuda_graph": "1"}


class Candidate(NamedTuple):
    """A file and a way to run it."""

    file: str
    precision: str
    way: Way


CANDIDATES: Mapping[str, Candidate] = {
    "fp32": Candidate("fp32", "fp32", Way(options=EXACT)),
    "TF32": Candidate("fp32", "TF32", Way(options=FAST)),
    "TF32, channels last": Candidate("fp32", "TF32", Way(options=FAST | NHWC)),
    "fp16": Candidate("fp16", "fp16", Way(options=EXACT)),
    "fp16, channels last": Candidate("fp16", "fp16", Way(options=EXACT | NHWC)),
    "fp16, bound": Candidate("fp16", "fp16", Way(options=EXACT, is_bound=True)),
    "fp16, channels last, bound": Candidate("fp16", "fp16", Way(options=EXACT | NHWC, is_bound=True)),
    "fp16, CUDA graph": Candidate("fp16", "fp16", Way(options=EXACT | GRAPH, is_bound=True)),
    "fp16, channels last, CUDA graph": Candidate("fp16", "fp16", Way(options=EXACT | NHWC | GRAPH, is_bound=True)),
    "TensorRT, fp16": Candidate(
        "fp32", "fp16", Way("TensorrtExecutionProvider", {"trt_fp16_enable": "1"}, is_bound=True)
    ),
}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Time ResNet-18 with FSR, random weights, in onnxruntime on a GPU in several ways, and in torch."""

    width: int = 64
    """Of ResNet-18; 64 is the paper's."""
    batches: tuple[int, ...] = (1, 8, 32, 64, 128, 256, 512)
    calls: int = 50
    """Timed calls of each, alternated; medians are reported."""


def main() -> None:
    arguments = tyro.cli(Arguments, prog="python -m benchmarks.gpu.serving")
    if not torch.cuda.is_available():
        sys.exit("error: torch finds no CUDA device; expected a GPU, torch with CUDA, and onnxruntime-gpu")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    for line in report(arguments):
        print(line, flush=True)


def report(arguments: Arguments) -> Iterator[str]:
    """Lines of Markdown: of each way and batch the time of a call, images/s, and its speed as a share of torch's."""
    yield f"{torch.cuda.get_device_name()}, torch {torch.__version__}; ResNet-18 of width {arguments.width} with FSR;"
    yield f"images and logits in the host's memory; medians (quartiles) of {arguments.calls} alternated calls"
    yield ""
    yield "| way | batch | ms | images/s | of torch fp16 with CUDA graphs |"
    yield "|---|---:|---|---:|---:|"
    with tempfile.TemporaryDirectory() as folder:
        model, files = make_files(arguments.width, Path(folder))
        for batch in arguments.batches:
            yield from _rows(model, files, batch, arguments.calls)


def make_files(width: int, folder: Path) -> tuple[FSRNet, dict[str, Path]]:
    """The network with its batch norms folded, and its graphs by precision."""
    torch.manual_seed(0)
    model = fold_batch_norm(create_model("resnet18", width=width)).requires_grad_(False)
    assert isinstance(model, FSRNet)
    graph = restricted(evidence_graph(model), ["logits"])
    graphs = {"fp32": graph, "fp16": to_fp16(graph).graph}
    for name in graphs:
        (folder / name).mkdir()
        write_graphs({"model.onnx": graphs[name]}, folder / name)
    return model, {name: folder / name / "model.onnx" for name in graphs}


def _rows(model: FSRNet, files: Mapping[str, Path], batch: int, count: int) -> Iterator[str]:
    images = np.random.default_rng(batch).random((batch, 3, SIDE, SIDE), dtype=np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(images)).numpy()
    calls: dict[str, Call] = {"torch fp16, CUDA graph": in_torch(model, images, torch.float16)}
    for name, candidate in CANDIDATES.items():
        try:
            call = in_onnxruntime(files[candidate.file], candidate.way, images, CLASSES)
            error = float(np.abs(call() - expected).max() / np.abs(expected).max())
        except Exception as reason:  # a provider that is not there, or an option that this build lacks
            yield f"| {name} | {batch} | not run: {_first_line(reason)} | | |"
            continue
        if not error <= CLOSE[candidate.precision]:  # NaN is not close
            raise ProviderError(f"{name} at batch {batch}: logits are off by {error:.1%} of the largest")
        calls[name] = call
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(count + 3):  # three to warm up
        for name, call in calls.items():
            taken = timed(call)
            if round_ >= 3:
                seconds[name].append(taken)
    (reference, *_) = (quartiles(times)[1] for times in seconds.values())
    for name, times in seconds.items():
        low, median, high = (1000 * value for value in quartiles(times))
        spread = f"{median:.2f} ({low:.2f} - {high:.2f})"
        yield f"| {name} | {batch} | {spread} | {1000 * batch / median:,.0f} | {1000 * reference / median:.2f} |"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:100].replace("|", "/")


if __name__ == "__main__":
    main()
