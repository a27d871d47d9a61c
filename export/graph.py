"""A trained network -> one ONNX graph with its weights in a file beside it."""

import copy
from pathlib import Path

import onnx
import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from fsr_serve.artifact import IMAGES, LOGITS, MODEL_FILE, WEIGHTS_FILE

OPSET = 20


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose batch norms are folded into the convolutions before them, where there is one."""
    folded: nn.Module = fuse(copy.deepcopy(model).eval())
    return folded


def write_graph(model: nn.Module, image_shape: tuple[int, int], folder: Path) -> None:
    """Write `model.onnx` and `weights.data` into `folder`: images (n, 3, h, w) in [0, 1] -> logits, any n.

    `model` is in eval mode, where the Gumbel noise is fixed at its expected value and cancels in the mask.
    """
    # two images, because torch.export takes a batch of one for a constant
    example = torch.zeros(2, 3, *image_shape)
    program = torch.onnx.export(
        model,
        (example,),
        input_names=[IMAGES],
        output_names=[LOGITS],
        dynamic_shapes=({0: torch.export.Dim("n")},),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    graph = _without_traces(program.model_proto)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save_model(
        graph,
        folder / MODEL_FILE,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=WEIGHTS_FILE,
        size_threshold=1024,
    )


def _without_traces(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what the exporter notes about source lines: it names paths of the machine and outweighs the graph."""
    for node in graph.graph.node:
        del node.metadata_props[:]
    for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output):
        del value.metadata_props[:]
    return graph
