"""A trained network becomes a model version: graphs, comparison with torch, manifest."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

import onnx
import onnxruntime
import torch
from pydantic import JsonValue
from torch import nn

from export.attack_graph import attack_network, example_inputs
from export.changing import write_manifest
from export.evidence import EvidenceNet
from export.folding import fold_batch_norm
from export.graph import IR_VERSION, OPSET, PRODUCER, restricted, to_onnx, write_graphs
from export.parity import ATTACK, Kept, Parity, compare
from export.precision import to_fp16, to_int8, with_deployed_weights
from export.target import new_version
from fsr_serve.artifact import (
    ATTACK_FILE,
    EVIDENCE_FILE,
    GRADIENT,
    IMAGES,
    LABELS,
    LOGITS,
    LOSS,
    LOSS_WEIGHTS,
    MODEL_FILE,
    Accuracy,
    JpegScale,
    Manifest,
    Precision,
    Preprocessing,
    Tensors,
    file_sha256,
)
from training.data import ImageData, to_floats
from training.evaluation.protocol import EPSILON, GRADIENT_ATTACKS, Budget
from training.evaluation.statistics import wilson

COMPARED_IMAGES = 256
CALIBRATION_IMAGES = 512

ATTACK_INPUTS = {IMAGES: True, LABELS: True, LOSS_WEIGHTS: False}
"""Inputs of the attack graph, and whether they have a batch dimension."""
ATTACK_OUTPUTS = (LOGITS, LOSS, GRADIENT)


@dataclass(frozen=True)
class Source:
    """A trained network in eval mode, images to compare and calibrate with, and what the manifest tells of it."""

    model: nn.Module
    held_out: ImageData
    """Not trained on; its classes and image size are the network's."""
    trained_on: ImageData
    held_out_name: str
    """Of the held-out images, in the manifest."""
    seed: int
    training: Mapping[str, JsonValue]
    accuracies: tuple[Accuracy, ...]
    """Of the checkpoint, measured earlier."""
    jpeg_scale: JpegScale = "full"
    """At which the images were decoded, and the server decodes others."""


def make_version(source: Source, target: Path, precision: Precision, *, has_attack_graph: bool) -> Parity:
    """Write the model version, compared with torch. Raises ExportError, and then leaves nothing behind.

    Only held-out images count for the accuracies in the manifest.
    """
    held_out = source.held_out.spread(COMPARED_IMAGES)
    compared = _filled(held_out, source.trained_on)
    with new_version(target) as folder:
        graphs = make_graphs(source, precision, has_attack_graph=has_attack_graph)
        tensors = {name: _tensors(graph) for name, graph in graphs.items()}
        write_graphs(graphs, folder)
        parity = compare(
            source.model,
            folder,
            to_floats(compared.pixels),
            compared.labels,
            seed=source.seed,
            precision=precision,
        )
        height, width = source.held_out.shape
        manifest = Manifest(
            classes=source.held_out.classes,
            preprocessing=Preprocessing(height=height, width=width, jpeg_scale=source.jpeg_scale),
            precision=precision,
            tensors=tensors,
            missing={} if has_attack_graph else {ATTACK_FILE: "left out by --no-attack-graph"},
            files={file.name: file_sha256(file) for file in sorted(folder.iterdir())},
            training=dict(source.training),
            accuracies=_accuracies(
                source,
                held_out,
                {"clean": parity.clean, ATTACK: parity.attacked},
                f"onnxruntime {onnxruntime.__version__}",
                precision,
            ),
            checkpoint_accuracies=(
                *_accuracies(
                    source,
                    held_out,
                    {"clean": parity.torch_clean, ATTACK: parity.torch_attacked},
                    f"torch {torch.__version__}",
                    "fp32",
                ),
                *source.accuracies,
            ),
            versions=graph_versions() | {name: version(name) for name in ("torch", "onnx", "onnxscript")},
        )
        write_manifest(folder, manifest)
    return parity


def make_graphs(source: Source, precision: Precision, *, has_attack_graph: bool) -> dict[str, onnx.ModelProto]:
    """The graphs of a version by file name, in the given precision."""
    image_shape = source.held_out.shape
    folded = fold_batch_norm(source.model)
    for parameter in folded.parameters():
        parameter.requires_grad_(False)
    network = EvidenceNet(folded, image_shape).eval()
    evidence = to_onnx(network, (torch.zeros(2, 3, *image_shape),), {IMAGES: True}, network.output_names)
    attack = None
    if has_attack_graph:
        classes = len(source.held_out.classes)
        traced = attack_network(folded, image_shape, classes)
        attack = to_onnx(traced, example_inputs(image_shape, classes), ATTACK_INPUTS, ATTACK_OUTPUTS)
    if precision != "fp32":
        calibration = to_floats(source.trained_on.spread(CALIBRATION_IMAGES).pixels).numpy()
        deployed = to_fp16(evidence) if precision == "fp16" else to_int8(evidence, calibration)
        evidence = deployed.graph
        attack = attack and with_deployed_weights(attack, deployed.weights)
    # the logits of both files come from the same nodes, so that evidence never explains another answer
    graphs = {MODEL_FILE: restricted(evidence, [LOGITS]), EVIDENCE_FILE: evidence}
    return graphs if attack is None else {**graphs, ATTACK_FILE: attack}


def graph_versions() -> dict[str, str]:
    """What every manifest says of its graphs and of the runtime they were tried in."""
    return {
        "opset": str(OPSET),
        "ir_version": str(IR_VERSION),
        "producer": PRODUCER,
        "onnxruntime": onnxruntime.__version__,
    }


def _filled(held_out: ImageData, trained_on: ImageData) -> ImageData:
    """COMPARED_IMAGES of them: held-out ones first, then others of every class; where there are too few, all again."""
    more = trained_on.spread(COMPARED_IMAGES - len(held_out))
    pixels, labels = (torch.cat([getattr(part, name) for part in (held_out, more)]) for name in ("pixels", "labels"))
    order = torch.arange(COMPARED_IMAGES) % len(labels)
    return replace(held_out, pixels=pixels[order], labels=labels[order])


def _tensors(graph: onnx.ModelProto) -> Tensors:
    return Tensors(
        inputs=tuple(value.name for value in graph.graph.input),
        outputs=tuple(value.name for value in graph.graph.output),
    )


def _accuracies(
    source: Source,
    images: ImageData,
    kept: Mapping[str, Kept | None],
    runtime: str,
    precision: str,
) -> tuple[Accuracy, ...]:
    definitions = {"clean": "images as they are", ATTACK: GRADIENT_ATTACKS[ATTACK].definition(Budget())}
    return tuple(
        Accuracy(
            attack=attack,
            definition=definitions[attack],
            epsilon=0.0 if attack == "clean" else EPSILON,
            **wilson(int(one.flags[: len(images)].sum()), len(images))._asdict(),
            n=len(images),
            data=source.held_out_name,
            data_sha256=images.sha256,
            seed=source.seed,
            runtime=runtime,
            precision=precision,
            seconds=round(one.seconds * len(images) / len(one.flags), 1),
            measured=date.today().isoformat(),
        )
        for attack, one in kept.items()
        if one is not None
    )
