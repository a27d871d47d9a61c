"""The command python -m export.adopt: a model version around an ONNX classifier that was made elsewhere."""

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import tyro
from onnx import TensorProto, helper, numpy_helper

from export.changing import write_manifest
from export.errors import ExportError
from export.graph import write_graphs
from export.target import check_target, new_version
from fsr_serve.artifact import (
    ATTACK_FILE,
    EVIDENCE_FILE,
    IMAGES,
    LOGITS,
    MODEL_FILE,
    JpegScale,
    Manifest,
    Preprocessing,
    Tensors,
    file_sha256,
)
from fsr_serve.errors import ArtifactError
from fsr_serve.session import OnnxModel

BATCHES = (1, 3)
"""Sizes that are tried."""
MOST_SIDE = 4096
"""Of an image, in pixels."""
WITHOUT_TORCH = "the version was made from an ONNX file alone"


@dataclass(frozen=True)
class Arguments:
    """Make a model version of an ONNX classifier: images (n, 3, h, w) -> logits or probabilities (n, classes).

    The network is taken to expect pixels in [0, 1], less --mean and divided by --std; where it expects 0 to 255, say
    --std 0.00392157 0.00392157 0.00392157.

    It can be served, and attacked by `python -m export.verify --attacks square`. What only torch can make, the
    evidence and the attack graph, is missing, and the manifest says so.
    """

    model: tyro.conf.Positional[Path]
    """ONNX file; its external data, if any, beside it."""
    target: tyro.conf.Positional[Path]
    """Folder to make, MODELS/NAME/VERSION with a whole number as VERSION."""
    classes: tuple[str, ...]
    """Names, in the order of the outputs."""
    image_shape: tuple[int, int] | None = None
    """Height and width of its images; by default what the file says."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Subtracted from [0, 1] pixels first, if it was trained so; becomes part of the graph."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Divides them then."""
    output: str | None = None
    """Name of the output to serve; by default the first."""
    probabilities: bool = False
    """The outputs are probabilities; their logarithms become the logits."""
    jpeg_scale: JpegScale = "full"
    """How large JPEGs are decoded. reduced: at 1/2, 1/4 or 1/8, still twice what the network takes; several times
    faster for photographs, with slightly other pixels. export.verify measures what the server will see."""


def main() -> None:
    arguments = tyro.cli(Arguments, prog="python -m export.adopt")
    try:
        adopt(arguments)
    except (ArtifactError, ExportError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{arguments.target}: {len(arguments.classes)} classes, ran on batches of {' and '.join(map(str, BATCHES))}")


def adopt(arguments: Arguments) -> None:
    """Write the model version. Raises ExportError or ArtifactError, and then leaves nothing behind."""
    check_target(arguments.target)
    _check_ranges(arguments)
    graph, image_shape = _adapted(_load(arguments.model), arguments)
    with new_version(arguments.target) as folder:
        write_graphs({MODEL_FILE: graph}, folder)
        _try(folder / MODEL_FILE, image_shape, arguments)
        manifest = Manifest(
            classes=arguments.classes,
            preprocessing=Preprocessing(height=image_shape[0], width=image_shape[1], jpeg_scale=arguments.jpeg_scale),
            precision="fp32",
            tensors={MODEL_FILE: Tensors(inputs=(IMAGES,), outputs=(LOGITS,))},
            missing={EVIDENCE_FILE: WITHOUT_TORCH, ATTACK_FILE: WITHOUT_TORCH},
            files={file.name: file_sha256(file) for file in sorted(folder.iterdir())},
            training={"method": f"unknown: adopted from {arguments.model.name}"},
            accuracies=(),
            checkpoint_accuracies=(),
            versions={
                "opset": str(next((item.version for item in graph.opset_import if item.domain in ("", "ai.onnx")), 0)),
                "ir_version": str(graph.ir_version),
                "producer": graph.producer_name,
                "onnxruntime": onnxruntime.__version__,
            },
        )
        write_manifest(folder, manifest)


def _check_ranges(arguments: Arguments) -> None:
    """Raise ExportError for what no file could be served with."""
    classes = arguments.classes
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise ExportError(f"classes are {', '.join(classes) or 'none'}; expected two or more different names")
    if not all(map(math.isfinite, arguments.mean)):
        raise ExportError(f"mean is {arguments.mean}; expected finite numbers")
    if not all(0 < value < math.inf for value in arguments.std):
        raise ExportError(f"std is {arguments.std}; expected positive numbers")


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf, onnx and the file system raise kinds of their own
        raise ExportError(f"{path} is no ONNX model that can be read: {error}") from error
    return model


def _adapted(model: onnx.ModelProto, arguments: Arguments) -> tuple[onnx.ModelProto, tuple[int, int]]:
    """The model with our tensor names, any batch size, normalisation inside; and the size of its images."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    outputs = [value for value in graph.output if arguments.output in (None, value.name)]
    if len(inputs) != 1:
        raise ExportError(f"{arguments.model} has inputs {_names(inputs)}; expected one, the images")
    if not outputs:
        raise ExportError(f"output is {arguments.output!r}; {arguments.model} has {_names(graph.output)}")
    for value in (inputs[0], outputs[0]):
        _check_is_float(value, arguments.model)
    image_shape = arguments.image_shape or _image_shape(inputs[0], arguments.model)
    if not 1 <= min(image_shape) <= max(image_shape) <= MOST_SIDE:
        raise ExportError(f"image_shape is {image_shape}; expected a height and a width of 1 to {MOST_SIDE} pixels")
    given, answer = inputs[0].name, outputs[0].name
    before = [
        helper.make_node("Sub", [IMAGES, "/fsr/mean"], ["/fsr/centred"]),
        helper.make_node("Div", ["/fsr/centred", "/fsr/std"], ["/fsr/images"]),
    ]
    after = [helper.make_node("Identity", ["/fsr/answer"], [LOGITS])]
    if arguments.probabilities:
        after = [
            helper.make_node("Max", ["/fsr/answer", "/fsr/least"], ["/fsr/positive"]),
            helper.make_node("Log", ["/fsr/positive"], [LOGITS]),
        ]
    ends = {given: "/fsr/images", answer: "/fsr/answer", "": ""}  # "": an optional input that is left out
    _rename(graph, lambda name: ends.get(name, f"/inner/{name}"))  # ours must not clash with names inside
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    constants = {"mean": np.reshape(arguments.mean, (1, 3, 1, 1)), "std": np.reshape(arguments.std, (1, 3, 1, 1))}
    if arguments.probabilities:
        constants["least"] = np.array(1e-12)
    for name, values in constants.items():
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), f"/fsr/{name}"))
    graph.input.append(helper.make_tensor_value_info(IMAGES, TensorProto.FLOAT, ["n", 3, *image_shape]))
    graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["n", len(arguments.classes)]))
    return model, image_shape


def _rename(graph: onnx.GraphProto, renamed: Callable[[str], str]) -> None:
    """Every value, everywhere, also in branches and loops: a name stands for one value in all of a model."""
    sparse = (tensor.values for tensor in graph.sparse_initializer)
    for named in (*graph.initializer, *sparse, *graph.input, *graph.output, *graph.value_info):
        named.name = renamed(named.name)
    for node in graph.node:
        for values in (node.input, node.output):
            for index, name in enumerate(values):
                values[index] = renamed(name)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename(inner, renamed)


def _check_is_float(value: onnx.ValueInfoProto, path: Path) -> None:
    """Raise ExportError for other numbers: whole ones would be 0 or 1 where 0 to 255 are expected."""
    kind = value.type.tensor_type.elem_type
    if kind != TensorProto.FLOAT:
        raise ExportError(
            f"{path}: {value.name} is {TensorProto.DataType.Name(kind).lower()}; expected float32 images and outputs. "
            "Export it so; where it then expects pixels of 0 to 255, say --std 0.00392157 0.00392157 0.00392157"
        )


def _image_shape(images: onnx.ValueInfoProto, path: Path) -> tuple[int, int]:
    dims = images.type.tensor_type.shape.dim
    shape = [dim.dim_value or dim.dim_param or "?" for dim in dims]
    if len(dims) != 4 or shape[1] != 3:
        raise ExportError(f"{path} takes {images.name} of shape {shape}; expected images (n, 3, height, width)")
    height, width = dims[2].dim_value, dims[3].dim_value
    if not (height and width):
        raise ExportError(f"{path} takes images of any size, {shape}; say by --image-shape HEIGHT WIDTH which to make")
    return height, width


def _try(path: Path, image_shape: tuple[int, int], arguments: Arguments) -> None:
    """Raise ExportError unless the file answers every batch size with finite logits of the right shape."""
    session = OnnxModel(path, device="cpu", threads=None)
    random = np.random.default_rng(0)
    images = random.random((max(BATCHES), 3, *image_shape), dtype=np.float32)
    answers = []
    for count in BATCHES:
        try:
            logits = session.logits(images[:count])
        except Exception as error:  # onnxruntime raises its own kinds, none of them public
            raise ExportError(
                f"{arguments.model} cannot run a batch of {count}: {_first_line(error)}. Export it with a dynamic "
                "batch dimension"
            ) from error
        if logits.shape != (count, len(arguments.classes)) or not np.isfinite(logits).all():
            raise ExportError(
                f"{arguments.model} answers {count} images with shape {logits.shape}; expected finite numbers of shape "
                f"{(count, len(arguments.classes))}, one for each of --classes"
            )
        answers.append(logits)
    if not arguments.probabilities and (answers[-1] >= 0).all() and np.allclose(answers[-1].sum(axis=1), 1, atol=1e-4):
        raise ExportError(f"{arguments.model} seems to answer with probabilities; say so by --probabilities")
    if not np.allclose(answers[0], answers[-1][:1], atol=1e-3 + 1e-3 * np.abs(answers[0]).max()):
        raise ExportError(f"{arguments.model} answers an image differently in a batch; expected independent images")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _names(values: Iterable[onnx.ValueInfoProto]) -> str:
    return ", ".join(value.name for value in values) or "none"
