"""The exported graphs against torch, on the same images, clean and attacked from the same starts."""

from pathlib import Path
from time import perf_counter
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from export.errors import ParityError
from export.evidence import EvidenceNet
from export.verification import by_gradient
from fsr_serve.artifact import ATTACK_FILE, EVIDENCE_FILE, IMAGES, LOGITS, MODEL_FILE, Precision
from fsr_serve.checks.probe import CROSS_ENTROPY, AttackGraph, Labels
from fsr_serve.session import Floats, OnnxModel, start_onnxruntime
from training.accuracy import frozen
from training.attacks import Attack, cross_entropy
from training.evaluation.protocol import EPSILON, GRADIENT_ATTACKS
from training.evaluation.suite import attack_named

TOLERANCE = 1e-4
"""Largest difference of a logit that is accepted of fp32."""
ROUNDING = 1e-6
"""The same as a share of the largest logit, for networks whose logits are so large that float32 cannot do better."""
EVIDENCE_ROUNDING = 1e-5
"""The same for evidence, where the mask magnifies rounding tenfold and parts of features are differences."""
SAME_LABELS = {"fp16": 0.999, "int8": 0.985}
"""Least share of images, clean and attacked, that must get the label that torch gives them."""
ROBUSTNESS_KEPT = 0.8
"""Least robust accuracy of the file, attacked through its own attack graph, as a share of the checkpoint's."""
LARGE_GRADIENT = 1e-3
"""Of an image's largest; smaller ones may round to another sign."""
SAME_SIGNS = {"fp32": 0.999, "fp16": 0.98, "int8": 0.85}
"""Least share of large gradients with torch's sign: a ReLU near zero may fall to either side."""
BATCH = 64
ATTACK: Final = "pgd20"

Flags = npt.NDArray[np.bool_]


class Kept(NamedTuple):
    """Which images keep their label, and how many seconds it took to find out."""

    flags: Flags
    seconds: float

    @property
    def share(self) -> float:
        return float(self.flags.mean())


class Parity(NamedTuple):
    """What the comparison found."""

    max_difference: float
    """Largest |torch - onnxruntime| of any logit, clean or attacked."""
    same_labels: float
    """Share of images, clean and attacked, that torch and the file give the same label."""
    clean: Kept
    attacked: Kept | None
    """The file under PGD-20 through its own attack graph; None without one."""
    torch_clean: Kept
    torch_attacked: Kept


def compare(
    model: nn.Module, folder: Path, images: Tensor, labels: Tensor, *, seed: int, precision: Precision
) -> Parity:
    """Compare the graphs in `folder` with the network they were made from.

    Images are float32 (n, 3, h, w) in [0, 1], labels (n,). Raises ParityError when logits, evidence, gradients or
    robustness differ by more than the precision explains.
    """
    exported = OnnxModel(folder / MODEL_FILE, device="cpu", threads=None)
    height, width = images.shape[2:]
    attack = attack_named(ATTACK, epsilon=EPSILON, seed=seed, image_shape=(height, width))
    truth = labels.numpy()

    def of_torch(attack: Attack | None) -> tuple[Tensor, Floats, float]:
        """The images under attack (None: as they are), the network's logits on them and the seconds of both."""
        started, logits, shown = perf_counter(), [], []
        for part, part_labels in zip(images.split(BATCH), labels.split(BATCH), strict=True):
            shown.append(attack(model, part, part_labels) if attack else part)
            with torch.no_grad():
                logits.append(model(shown[-1]))
        return torch.cat(shown), torch.cat(logits).numpy(), perf_counter() - started

    def of_file(inputs: Tensor) -> tuple[Floats, float]:
        started = perf_counter()
        logits = np.concatenate([exported.logits(part.numpy()) for part in inputs.split(BATCH)])
        return logits, perf_counter() - started

    with frozen(model):
        _, clean, torch_seconds = of_torch(None)
        attacked, robust, torch_attack_seconds = of_torch(attack)
        (found_clean, seconds), (found_robust, _) = of_file(images), of_file(attacked)
        expected, found = np.stack([clean, robust]), np.stack([found_clean, found_robust])
        difference = float(np.abs(expected - found).max())
        same = expected.argmax(axis=2) == found.argmax(axis=2)
        _check_logits(difference, float(np.abs(expected).max()), float(same.mean()), same.size, precision)
        if precision == "fp32":
            _check_evidence(model, folder, images[:BATCH])
        if precision == "fp16":
            _check_halves(folder, attacked[:BATCH].numpy())
        _check_gradients(model, folder, images[:BATCH], labels[:BATCH], SAME_SIGNS[precision])
    torch_attacked = Kept(robust.argmax(axis=1) == truth, torch_attack_seconds)
    own = _attacked_through(folder, exported, images.numpy(), truth, seed)
    if own is not None and own.share < ROBUSTNESS_KEPT * torch_attacked.share:
        raise ParityError(
            f"the exported file keeps {own.share:.1%} of {len(images)} images right under PGD-20, the checkpoint "
            f"{torch_attacked.share:.1%}; expected at least {ROBUSTNESS_KEPT:g} of that, so nothing was written"
        )
    return Parity(
        max_difference=difference,
        same_labels=float(same.mean()),
        clean=Kept(found_clean.argmax(axis=1) == truth, seconds),
        attacked=own,
        torch_clean=Kept(clean.argmax(axis=1) == truth, torch_seconds),
        torch_attacked=torch_attacked,
    )


def _check_logits(difference: float, largest: float, same_labels: float, count: int, precision: Precision) -> None:
    tolerance = max(TOLERANCE, ROUNDING * largest) if precision == "fp32" else np.inf
    # NaN compares false with everything, so the comparison must be the one that accepts
    if not (np.isfinite(difference) and difference <= tolerance):
        raise ParityError(
            f"the exported logits differ from torch's by up to {difference:.1e} over {count} images, clean and "
            f"attacked; at most {tolerance:.0e} is accepted, so nothing was written"
        )
    if precision != "fp32" and same_labels < SAME_LABELS[precision]:
        raise ParityError(
            f"the {precision} file gives {same_labels:.2%} of {count} images, clean and attacked, the label that torch "
            f"gives them; expected at least {SAME_LABELS[precision]:.1%}, so nothing was written"
        )


def _check_evidence(model: nn.Module, folder: Path, images: Tensor) -> None:
    network = EvidenceNet(model, (images.shape[2], images.shape[3]))
    session = start_onnxruntime(folder / EVIDENCE_FILE, device="cpu", threads=None)
    found = session.run(list(network.output_names), {"images": images.numpy()})
    with torch.no_grad():
        expected = network(images)
    for name, ours, theirs in zip(network.output_names, found, expected, strict=True):
        difference = float(np.abs(ours - theirs.numpy()).max())
        tolerance = max(TOLERANCE, EVIDENCE_ROUNDING * float(theirs.abs().max()))
        if not difference <= tolerance:
            raise ParityError(
                f"{EVIDENCE_FILE}: {name} differs from torch's by up to {difference:.1e} over {len(images)} images; "
                f"at most {tolerance:.0e} is accepted, so nothing was written"
            )


def _check_halves(folder: Path, images: Floats) -> None:
    """On the CPU onnxruntime computes float16 in float32: an overflow shows in no logit, only in the value itself."""
    graph = onnx.load(folder / MODEL_FILE)
    values = [name for node in graph.graph.node for name in node.output if name != LOGITS]
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in values)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for name, found in zip(values, session.run(values, {IMAGES: images}), strict=True):
        if not np.isfinite(found).all():
            raise ParityError(
                f"{name} in {MODEL_FILE} is beyond float16's 65504 on some of {len(images)} attacked images, so "
                "nothing was written. Export fp32 or int8"
            )


def _check_gradients(model: nn.Module, folder: Path, images: Tensor, labels: Tensor, least: float) -> None:
    if not (folder / ATTACK_FILE).exists():
        return
    graph = AttackGraph(folder / ATTACK_FILE, device="cpu", threads=None)
    found = graph.step(images.numpy(), labels.numpy(), CROSS_ENTROPY).gradient
    inputs = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(model(inputs), labels).sum(), inputs)
    largest = gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
    is_large = (gradient.abs() > LARGE_GRADIENT * largest).numpy()
    same = float((np.sign(found) == gradient.sign().numpy())[is_large].mean()) if is_large.any() else 1.0
    if not same >= least:
        raise ParityError(
            f"{ATTACK_FILE}: {same:.2%} of the large gradients have torch's sign over {len(images)} images; expected "
            f"at least {least:.1%}, so nothing was written"
        )


def _attacked_through(folder: Path, exported: OnnxModel, images: Floats, labels: Labels, seed: int) -> Kept | None:
    """What the file keeps under PGD-20 through its own attack graph, from the same starts as torch's."""
    if not (folder / ATTACK_FILE).exists():
        return None
    graph = AttackGraph(folder / ATTACK_FILE, device="cpu", threads=None)
    started, flags = perf_counter(), []
    for first in range(0, len(images), BATCH):
        part, truth = images[first : first + BATCH], labels[first : first + BATCH]
        adversarial = by_gradient(graph, GRADIENT_ATTACKS[ATTACK], EPSILON, seed, part, truth, first)
        flags.append(exported.logits(adversarial).argmax(axis=1) == truth)
    return Kept(np.concatenate(flags), perf_counter() - started)
