"""python -m benchmarks.deployment: what FSR, int8, bf16, evidence and attack graphs cost.

Each row times two graphs in pairs of single calls, on random weights and images; see `training.pairs`.
"""

import logging
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnx
import onnxruntime
import torch
import tyro
from torch import Tensor, nn

from benchmarks.training_steps import FSRAsWritten
from export.attack_graph import attack_network, example_inputs
from export.evidence import EvidenceNet
from export.folding import fold_batch_norm
from export.graph import restricted, to_onnx, write_graphs
from export.precision import to_int8
from export.version import ATTACK_INPUTS, ATTACK_OUTPUTS
from fsr_serve.checks.probe import CROSS_ENTROPY, AttackGraph
from fsr_serve.errors import DeviceError
from fsr_serve.session import Floats, OnnxModel, Session, open_session, start_onnxruntime
from training.models import create_model
from training.pairs import Measured, Pair, measured

SHAPE = (32, 32)

RowName = Literal["plain", "as-written", "int8", "bf16", "evidence", "attack"]
"""What a row compares the model with FSR with."""


@dataclass(frozen=True)
class Arguments:
    """Time FSR against the plain backbone, int8 and bf16 against fp32, evidence and attack graphs against the model.

    In onnxruntime, but for bf16, which is OpenVINO's and left out where the processor has none.
    """

    pairs: int = 40
    """Alternated pairs per row."""
    batches: tuple[int, ...] = (1, 32)
    widths: tuple[int, ...] = (64, 32)
    """Of ResNet-18; 64 is the paper's, 32 that of the model that ships."""
    only: tuple[RowName, ...] = get_args(RowName)
    """The rows: FSR against the plain backbone or against Eq. 2 as written, int8, bf16, evidence and attack graphs."""
    threads: int | None = None
    """All cores by default."""


class WithHeads(nn.Module):
    """All logits of the network as written, so that none of them is optimised away."""

    def __init__(self, network: nn.Module, as_written: FSRAsWritten) -> None:
        super().__init__()
        self.network, self._as_written = network, [as_written]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.network(images), *self._as_written[0].heads


def main() -> None:
    arguments = tyro.cli(Arguments, prog="python -m benchmarks.deployment")
    if min(arguments.pairs, *arguments.batches, *arguments.widths) < 1:
        sys.exit("error: pairs, batches and widths must be 1 or more")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    print(f"{platform.processor() or platform.machine()}, onnxruntime {onnxruntime.__version__}, Python ", end="")
    print(f"{platform.python_version()}, {arguments.pairs} alternated pairs per row\n")
    print("| candidate / reference | batch | ratio of times: median (quartiles) | candidate ms | reference ms |")
    print("|---|---|---|---|---|")
    for width in arguments.widths:
        with tempfile.TemporaryDirectory() as folder:
            files = make_files(width, Path(folder))
            for batch in arguments.batches:
                known = rows(width, files, batch, arguments.threads)
                for name in arguments.only:
                    if name in known:
                        print(line(known[name], measured(known[name], arguments.pairs), batch), flush=True)


def make_files(width: int, folder: Path) -> dict[str, Path]:
    """Graphs of ResNet-18 of the given width by what they are."""
    torch.manual_seed(0)
    plain = fold_batch_norm(create_model("resnet18", width=width, fsr=False)).requires_grad_(False)
    with_fsr = fold_batch_norm(create_model("resnet18", width=width)).requires_grad_(False)
    evidence = evidence_graph(with_fsr)
    calibration = np.random.default_rng(0).random((64, 3, *SHAPE), dtype=np.float32)
    graphs = {
        "plain": restricted(evidence_graph(plain), ["logits"]),
        "fsr": restricted(evidence, ["logits"]),
        "evidence": evidence,
        "int8": restricted(to_int8(evidence, calibration).graph, ["logits"]),
        "attack": to_onnx(
            attack_network(with_fsr, SHAPE, 10), example_inputs(SHAPE, 10), ATTACK_INPUTS, ATTACK_OUTPUTS
        ),
        "as written": _as_written(with_fsr),
    }
    for name, graph in graphs.items():
        (folder / name).mkdir()
        write_graphs({"model.onnx": graph}, folder / name)
    return {name: folder / name / "model.onnx" for name in graphs}


def rows(width: int, files: dict[str, Path], batch: int, threads: int | None) -> dict[RowName, Pair]:
    images = np.random.default_rng(1).random((batch, 3, *SHAPE), dtype=np.float32)
    labels = np.zeros(batch, np.int64)
    model = {name: OnnxModel(files[name], device="cpu", threads=threads) for name in ("plain", "fsr", "int8")}
    whole = {name: start_onnxruntime(files[name], device="cpu", threads=threads) for name in ("evidence", "as written")}
    attack = AttackGraph(files["attack"], device="cpu", threads=threads)

    bf16 = _bf16(files["fsr"], threads)

    def fsr() -> Floats:
        return model["fsr"].logits(images)

    def all_of(name: str) -> Callable[[], object]:
        return lambda: whole[name].run(None, {"images": images})

    network = f"width {width}"
    with_bf16: dict[RowName, Pair] = {}
    if bf16:
        with_bf16["bf16"] = Pair(f"{network}: fp32 / bf16 in OpenVINO", fsr, lambda: bf16.logits(images))
    return with_bf16 | {
        "plain": Pair(f"{network}: FSR / plain", fsr, lambda: model["plain"].logits(images)),
        "as-written": Pair(f"{network}: FSR / FSR as written with auxiliary heads", fsr, all_of("as written")),
        "int8": Pair(f"{network}: fp32 / int8", fsr, lambda: model["int8"].logits(images)),
        "evidence": Pair(f"{network}: evidence / model", all_of("evidence"), fsr),
        "attack": Pair(f"{network}: attack step / model", lambda: attack.step(images, labels, CROSS_ENTROPY), fsr),
    }


def _bf16(path: Path, threads: int | None) -> Session | None:
    """The graph in OpenVINO, or None where the processor has no bf16."""
    try:
        return open_session(path, runtime="openvino", device="cpu", precision="bf16", threads=threads)
    except DeviceError as error:
        print(f"bf16 is left out: {error}", file=sys.stderr)
        return None


def line(pair: Pair, found: Measured, batch: int) -> str:
    """The row as Markdown."""
    low, median, high = found.ratio
    milliseconds = " | ".join(f"{1000 * seconds:.1f}" for seconds in found.medians)
    return f"| {pair.name} | {batch} | {median:.3f} ({low:.3f} - {high:.3f}) | {milliseconds} |"


def evidence_graph(network: nn.Module) -> onnx.ModelProto:
    """Its logits and all that checks and maps read, for images of `SHAPE`."""
    evidence = EvidenceNet(network, SHAPE).eval()
    return to_onnx(evidence, (torch.zeros(2, 3, *SHAPE),), {"images": True}, evidence.output_names)


def _as_written(network: nn.Module) -> onnx.ModelProto:
    original = network.network.layer4[1]
    as_written = FSRAsWritten(original)
    network.network.layer4[1] = as_written
    try:
        outputs = ("logits", "robust", "nonrobust", "recalibrated")
        return to_onnx(WithHeads(network, as_written).eval(), (torch.zeros(2, 3, *SHAPE),), {"images": True}, outputs)
    finally:
        network.network.layer4[1] = original


if __name__ == "__main__":
    main()
