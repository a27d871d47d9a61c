"""Graphs in half precision or in 8-bit integers, and the attack graph of what they became."""

import hashlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from export.errors import ExportError
from fsr_serve.artifact import IMAGES

MASK_OPERATORS = ("Div", "Sigmoid")
"""The mask sigmoid(-r / tau) magnifies r tenfold, so it stays in float32."""
CALIBRATION_BATCH = 64
QUANTIZED = ("Conv",)
"""Nearly all of the work. With sums, ReLUs and the last linear layer, more than twice as many labels changed."""

Floats = npt.NDArray[np.float32]


class Deployed(NamedTuple):
    """A converted graph and, per SHA-256 of a float32 weight, how the attack graph reads what it became."""

    graph: onnx.ModelProto
    weights: dict[str, "DeployedWeight"]


class DeployedWeight(NamedTuple):
    """Initializers that hold a weight as deployed, and the operator that makes float32 of them."""

    initializers: list[onnx.TensorProto]
    operator: str
    attributes: dict[str, Any]


def to_fp16(graph: onnx.ModelProto) -> Deployed:
    """Weights and activations in float16, inputs, outputs and the mask of FSR in float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    source = onnx.ModelProto()
    source.CopyFrom(graph)
    converted = convert_float_to_float16(source, keep_io_types=True, op_block_list=list(MASK_OPERATORS))
    OnnxModel(converted).topological_sort()  # the converter puts its casts last, and notes types that no longer hold
    del converted.graph.value_info[:]
    onnx.checker.check_model(converted, full_check=True)
    halves = {tensor.name: tensor for tensor in converted.graph.initializer if _is(tensor, onnx.TensorProto.FLOAT16)}
    return Deployed(
        converted,
        {
            _key(tensor): DeployedWeight([halves[tensor.name]], "Cast", {"to": onnx.TensorProto.FLOAT})
            for tensor in graph.graph.initializer
            if tensor.name in halves
        },
    )


def to_int8(graph: onnx.ModelProto, images: Floats) -> Deployed:
    """Quantize to 8-bit integers (QDQ; weights per channel), with activation ranges taken from `images`."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    if not len(images):
        raise ExportError("int8 needs images to calibrate with; none were given")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save_model(graph, source)
        level = logging.root.level
        logging.root.setLevel(logging.ERROR)  # it recommends a preparation that the exporter has done
        try:
            quantize_static(
                source,
                target,
                _Calibration(images),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                op_types_to_quantize=list(QUANTIZED),
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                reduce_range=True,  # 7 bits: with 8, sums of products overflow on processors with AVX2 but no VNNI
                # ranges are means over batches: one extreme image must not widen them for all
                extra_options={"CalibMovingAverage": True},
            )
        finally:
            logging.root.setLevel(level)
        quantized = onnx.load(target)
    quantized.ir_version = graph.ir_version
    tensors = {tensor.name: tensor for tensor in quantized.graph.initializer}
    floats = {tensor.name: tensor for tensor in graph.graph.initializer}
    weights = {}
    for node in quantized.graph.node:
        source_name = node.input[0].removesuffix("_quantized")
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors and source_name in floats:
            attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            if _is(tensors[node.input[0]], onnx.TensorProto.INT8):
                parts = [tensors[name] for name in node.input]
                weights[_key(floats[source_name])] = DeployedWeight(parts, "DequantizeLinear", attributes)
    return Deployed(quantized, weights)


def with_deployed_weights(attack: onnx.ModelProto, weights: dict[str, DeployedWeight]) -> onnx.ModelProto:
    """The attack graph computing in float32 with the weights that are deployed, stored as they are deployed."""
    result = onnx.ModelProto()
    result.CopyFrom(attack)
    graph = result.graph
    decoders, kept = [], []
    stored: dict[str, onnx.TensorProto] = {}
    for tensor in graph.initializer:
        weight = weights.get(_key(tensor))
        found = weight or weights.get(_transposed_key(tensor) or "")
        if found is None:
            kept.append(tensor)
            continue
        stored |= {part.name: part for part in found.initializers}
        names = [part.name for part in found.initializers]
        decoded = tensor.name if weight else f"{tensor.name}/transposed"
        decoders.append(helper.make_node(found.operator, names, [decoded], **found.attributes))
        if weight is None:
            decoders.append(helper.make_node("Transpose", [decoded], [tensor.name], perm=[1, 0]))
    nodes = [*decoders, *graph.node]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *stored.values()])
    onnx.checker.check_model(result, full_check=True)
    return result


class _Calibration:
    """Batches of images in the form that quantize_static reads."""

    def __init__(self, images: Floats) -> None:
        self._batches: Iterator[Floats] = iter(np.array_split(images, -(-len(images) // CALIBRATION_BATCH)))

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {IMAGES: batch}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.get_next, None)


def _key(tensor: onnx.TensorProto) -> str:
    return hashlib.sha256(numpy_helper.to_array(tensor).tobytes()).hexdigest()


def _transposed_key(tensor: onnx.TensorProto) -> str | None:
    """Of a matrix; the gradient of a linear layer takes its weight the other way round."""
    array = numpy_helper.to_array(tensor)
    return hashlib.sha256(np.ascontiguousarray(array.T).tobytes()).hexdigest() if array.ndim == 2 else None


def _is(tensor: onnx.TensorProto, data_type: int) -> bool:
    return tensor.data_type == data_type
