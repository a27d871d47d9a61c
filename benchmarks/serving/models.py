"""The model versions that are served."""

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks.serving.servers import ROOT
from export.adoption import Arguments, adopt
from export.evidence import EvidenceNet
from export.folding import fold_batch_norm
from export.graph import restricted, to_onnx
from fsr_serve.artifact import IMAGES, LOGITS, JpegScale
from training.models import create_model

SIDE = 32
CLASSES = tuple(f"class {index}" for index in range(10))
SHIPPED = ROOT / "models" / "cifar10-fsr" / "1"


def near_free(folder: Path, jpeg_scale: JpegScale = "full") -> Path:
    """A version that costs microseconds: the mean of each eighth of the image, times a small matrix."""
    weight = np.random.default_rng(0).standard_normal((3 * 4 * 4, len(CLASSES))).astype(np.float32)
    side = SIDE // 4
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["pixels"], ["means"], kernel_shape=[side, side], strides=[side, side]),
            helper.make_node("Flatten", ["means"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["scores"]),
        ],
        "near_free",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", len(CLASSES)])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return _adopted(model, folder, f"near-free-{jpeg_scale}", jpeg_scale)


def width_64(folder: Path) -> Path:
    """ResNet-18 of the paper's width with FSR and random weights."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    network = fold_batch_norm(create_model("resnet18", width=64)).requires_grad_(False)
    evidence = EvidenceNet(network, (SIDE, SIDE)).eval()
    model = to_onnx(evidence, (torch.zeros(2, 3, SIDE, SIDE),), {IMAGES: True}, evidence.output_names)
    return _adopted(restricted(model, [LOGITS]), folder, "width-64", "full")


def _adopted(model: onnx.ModelProto, folder: Path, name: str, jpeg_scale: JpegScale) -> Path:
    target = folder / name / "1"
    if not target.exists():
        folder.mkdir(exist_ok=True)
        file = folder / f"{name}.onnx"
        onnx.save(model, file)
        adopt(Arguments(file, target, CLASSES, jpeg_scale=jpeg_scale))
        file.unlink()
    return target
