"""A network in torch -> an ONNX graph, its weights in the file that all graphs of a version share."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import external_data_helper, numpy_helper
from onnxscript.optimizer import optimize_ir
from torch import Tensor, nn

from export.errors import GraphError
from fsr_serve.artifact import WEIGHTS_FILE

OPSET = 20
IR_VERSION = 10
PRODUCER = "fsr-serve"
INLINE_BYTES = 1024
"""Smaller tensors stay in the graph."""
ALIGNMENT = 4096
"""Of each tensor in the weights file, so that it can be mapped into memory."""


def to_onnx(
    network: nn.Module, examples: tuple[Tensor, ...], inputs: Mapping[str, bool], outputs: Sequence[str]
) -> onnx.ModelProto:
    """The network in eval mode as a checked ONNX model.

    `inputs` says of each input whether its first dimension is the batch, of any size. Raises GraphError for an
    operator that ONNX lacks.
    """
    batch = torch.export.Dim("n")
    try:
        program = torch.onnx.export(
            network,
            examples,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple({0: batch} if is_batched else None for is_batched in inputs.values()),
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    except Exception as error:  # the exporter and the network's own code raise many kinds
        raise GraphError(f"this network cannot be written as ONNX: {_reason(error)}") from error
    assert program is not None
    # weights are left alone: folded copies of them would be stored beside the ones that all graphs share
    optimize_ir(program.model, input_size_limit=INLINE_BYTES // 16)
    model = _without_traces(program.model_proto)
    model.ir_version, model.producer_name, model.producer_version = IR_VERSION, PRODUCER, ""
    onnx.checker.check_model(model, full_check=True)
    return model


def restricted(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """The same model with only these outputs and what they need."""
    extractor = onnx.utils.Extractor(model)
    part = extractor.extract_model([value.name for value in model.graph.input], list(outputs))
    part.ir_version, part.producer_name, part.producer_version = IR_VERSION, PRODUCER, ""
    return part


def write_graphs(graphs: Mapping[str, onnx.ModelProto], folder: Path) -> None:
    """Write the graphs under their file names into `folder`, and each distinct weight once into `weights.data`."""
    places: dict[str, tuple[int, int]] = {}
    with (folder / WEIGHTS_FILE).open("wb") as weights:
        for graph in graphs.values():
            for tensor in graph.graph.initializer:
                if not tensor.raw_data:  # numbers in a field of their type are stored as bytes too
                    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
                raw = tensor.raw_data
                if len(raw) < INLINE_BYTES:
                    continue
                key = hashlib.sha256(raw).hexdigest()
                if key not in places:
                    weights.write(bytes(-weights.tell() % ALIGNMENT))
                    places[key] = weights.tell(), len(raw)
                    weights.write(raw)
                external_data_helper.set_external_data(tensor, WEIGHTS_FILE, *places[key])
                tensor.ClearField("raw_data")
    for name, graph in graphs.items():
        (folder / name).write_bytes(graph.SerializeToString())


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause: the exporter wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what the exporter notes about source lines: it names paths of the machine and outweighs the graph."""
    parts: list[Any] = [*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output]
    for part in (*parts, *model.graph.initializer, model.graph, model):
        del part.metadata_props[:]
    return model
