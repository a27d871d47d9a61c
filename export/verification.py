"""The command python -m export.verify: attack the very files that will be deployed, in their runtime.

Nothing here imports torch.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import onnxruntime
import tyro
from tqdm import tqdm

from export.errors import VerificationError
from export.labelled_images import LabelledImages, load_as_served
from fsr_serve.artifact import (
    ATTACK_FILE,
    MODEL_FILE,
    SIGNATURE_FILE,
    Accuracy,
    ModelVersion,
    read_version,
    write_manifest,
)
from fsr_serve.checks.probe import CROSS_ENTROPY, MARGIN, AttackGraph, Labels, pgd
from fsr_serve.checks.square import square
from fsr_serve.errors import StartupError
from fsr_serve.session import Device, Floats, Precision, Runtime, Session, open_session
from training.evaluation.flags import FlagsFile
from training.evaluation.protocol import EPSILON, GRADIENT_ATTACKS, AttackName, Budget, RandomStarts, definition_of
from training.evaluation.statistics import wilson
from training.source import DataError

BATCH = 100
ALLOWED_LOSS = 0.02
"""How far an accuracy of the file may lie under the checkpoint's."""
LOSS_WEIGHTS = {"cross_entropy": CROSS_ENTROPY, "margin": MARGIN}


@dataclass(frozen=True)
class Arguments:
    """Measure clean and robust accuracy of a model version as it will be served, and write it into its manifest.

    Gradients come from the version's attack graph, answers from model.onnx in the runtime asked for. Fails when an
    accuracy lies more than 2 points under the checkpoint's, where that was measured on the same images. Can be
    stopped and started again: what is done is kept.
    """

    version: tyro.conf.Positional[Path]
    """MODELS/NAME/VERSION."""
    data: str
    """Hugging Face id or folder with the classes of the model."""
    data_name: str | None = None
    """Name of the data in the manifest; by default what --data says."""
    split: str = "test"
    images: int | None = None
    """Use only so many images, spread evenly over the split."""
    attacks: tuple[AttackName, ...] = ("fgsm", "pgd20", "pgd100", "cw", "square")
    """Attacks to run, besides clean images."""
    queries: int = 1000
    """Of Square, per image."""
    epsilon: float = EPSILON
    """L-infinity bound, in [0, 1] pixels."""
    seed: int = 0
    """Of random starts and of Square's proposals."""
    runtime: Runtime = "onnxruntime"
    precision: Precision = "f32"
    """What the runtime multiplies in; bf16 needs openvino and a processor that has it."""
    device: Device = "auto"
    threads: int | None = None
    """CPU threads; all cores by default."""
    state: Path | None = None
    """Folder for what is done so far; by default .verify beside the version."""


class Verdict(NamedTuple):
    """A measured accuracy, and the checkpoint's on the same images where there is one."""

    found: Accuracy
    checkpoint: Accuracy | None

    @property
    def is_too_low(self) -> bool:
        return self.checkpoint is not None and self.found.accuracy < self.checkpoint.accuracy - ALLOWED_LOSS


def main() -> None:
    arguments = tyro.cli(Arguments, prog="python -m export.verify")
    try:
        verdicts = verify(arguments)
    except (StartupError, DataError, VerificationError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; the same command goes on from here")
    for verdict in verdicts:
        print(line(verdict))
    if any(verdict.is_too_low for verdict in verdicts):
        sys.exit(f"{arguments.version} is less accurate than its checkpoint by more than {ALLOWED_LOSS:.0%}: see above")


def verify(arguments: Arguments) -> list[Verdict]:
    """Attack the version and write the accuracies into its manifest, those of clean images first.

    Raises VerificationError for a signed version, an epsilon outside (0, 1], or attacks that need the attack graph it
    has not; ArtifactError and DeviceError for a version or runtime that cannot be used; DataError for the images.
    """
    if not 0 < arguments.epsilon <= 1:
        raise VerificationError(f"epsilon is {arguments.epsilon}; expected above 0 and at most 1 ([0, 1] pixels)")
    version = read_version(arguments.version)
    _check_can_change(version, arguments)
    session = open_session(
        version.path / MODEL_FILE,
        runtime=arguments.runtime,
        device=arguments.device,
        precision=arguments.precision,
        threads=arguments.threads,
    )
    data = load_as_served(arguments.data, arguments.split, version.manifest, arguments.images)
    attacks: list[AttackName | Literal["clean"]] = ["clean", *dict.fromkeys(arguments.attacks)]
    accuracies = [_measure(attack, version, session, data, arguments) for attack in attacks]
    _write(version, accuracies)
    return [Verdict(found, _of_checkpoint(version, found)) for found in accuracies]


def line(verdict: Verdict) -> str:
    """One row of the report."""
    found, checkpoint = verdict
    interval = f"{found.low:>10.2%} - {found.high:.2%}"
    text = f"{found.attack:<8}{found.accuracy:>8.2%}{interval}   {found.definition}, n = {found.n}"
    if checkpoint is None:
        return f"{text}; the checkpoint was not measured on these images"
    return f"{text}; checkpoint {checkpoint.accuracy:.2%}{' TOO LOW' if verdict.is_too_low else ''}"


def _check_can_change(version: ModelVersion, arguments: Arguments) -> None:
    if (version.path / SIGNATURE_FILE).exists():
        raise VerificationError(
            f"{version.path} is signed, and figures in its manifest would break the signature. Verify before signing, "
            f"or remove {SIGNATURE_FILE} and sign again"
        )
    needs_gradients = [name for name in arguments.attacks if name != "square"]
    if needs_gradients and ATTACK_FILE not in version.manifest.tensors:
        reason = version.manifest.missing.get(ATTACK_FILE, "not made")
        raise VerificationError(
            f"{version.path} has no attack graph ({reason}), which {', '.join(needs_gradients)} need. "
            "Choose --attacks square"
        )


def _measure(
    attack: AttackName | Literal["clean"],
    version: ModelVersion,
    session: Session,
    data: LabelledImages,
    arguments: Arguments,
) -> Accuracy:
    engine = f"{session.runtime}-{session.device}-{session.precision}"
    digest = hashlib.sha256(json.dumps(version.manifest.files, sort_keys=True).encode()).hexdigest()[:12]
    budget = f"-{arguments.queries}" if attack == "square" else ""
    name = f"{attack}{budget}-{arguments.epsilon:g}-seed{arguments.seed}-{data.sha256[:12]}-{digest}-{engine}.npz"
    flags = FlagsFile((arguments.state or version.path.parent / ".verify") / name, len(data.labels))
    parts, known = list(flags.unknown(BATCH)), int(flags.is_known.sum())
    first = parts[0].start if parts else 0
    adversarial = _attack(attack, version, session, arguments, first=first, shape=data.images.shape)
    with tqdm(total=len(data.labels), initial=known, desc=attack, unit="img", leave=False) as bar:
        for part in parts:
            started = time.perf_counter()
            images, labels = data.images[part], data.labels[part]
            answers = session.logits(adversarial(images, labels)).argmax(axis=1)
            flags.write(part, answers == labels, time.perf_counter() - started)
            bar.update(len(labels))
    interval = wilson(int(flags.correct.sum()), len(data.labels))
    return Accuracy(
        attack=attack,
        definition="images as they are"
        if attack == "clean"
        else definition_of(attack, Budget(queries=arguments.queries)),
        epsilon=0.0 if attack == "clean" else arguments.epsilon,
        **interval._asdict(),
        n=len(data.labels),
        data=f"{arguments.data_name or arguments.data}, split {arguments.split}",
        data_sha256=data.sha256,
        seed=arguments.seed,
        runtime=f"onnxruntime {onnxruntime.__version__}" if session.runtime == "onnxruntime" else session.runtime,
        precision=version.manifest.precision if session.precision == "f32" else session.precision,
        seconds=round(flags.seconds, 1),
        measured=date.today().isoformat(),
    )


def _attack(
    attack: AttackName | Literal["clean"],
    version: ModelVersion,
    session: Session,
    arguments: Arguments,
    *,
    first: int,
    shape: tuple[int, ...],
) -> Callable[[Floats, Labels], Floats]:
    """The attack, for the images from number `first` on, in order."""
    epsilon, seed = arguments.epsilon, arguments.seed
    if attack == "clean":
        return lambda images, labels: images
    if attack == "square":
        numbers = iter(range(first // BATCH, shape[0]))

        def by_queries(images: Floats, labels: Labels) -> Floats:
            random = np.random.default_rng((seed, next(numbers)))  # a stream per batch, to go on where it stopped
            return square(session.logits, images, labels, epsilon=epsilon, queries=arguments.queries, random=random)

        return by_queries
    graph = AttackGraph(version.path / ATTACK_FILE, device=arguments.device, threads=arguments.threads)
    protocol = GRADIENT_ATTACKS[attack]
    starts = RandomStarts(seed, image_values=int(np.prod(shape[1:])), first=first)

    def by_gradient(images: Floats, labels: Labels) -> Floats:
        return pgd(
            graph,
            images,
            labels,
            epsilon=epsilon,
            step_size=epsilon / protocol.divisor,
            steps=protocol.steps,
            start=starts.next(images.shape, epsilon) if protocol.random_start else None,
            loss_weights=LOSS_WEIGHTS[protocol.loss],
        )

    return by_gradient


def _write(version: ModelVersion, accuracies: list[Accuracy]) -> None:
    def measures(accuracy: Accuracy) -> tuple[object, ...]:
        return tuple(
            getattr(accuracy, name)
            for name in ("attack", "definition", "epsilon", "n", "data_sha256", "seed", "runtime", "precision")
        )

    new = {measures(accuracy) for accuracy in accuracies}
    kept = [accuracy for accuracy in version.manifest.accuracies if measures(accuracy) not in new]
    write_manifest(version.path, version.manifest.model_copy(update={"accuracies": (*kept, *accuracies)}))


def _of_checkpoint(version: ModelVersion, found: Accuracy) -> Accuracy | None:
    def images(accuracy: Accuracy) -> tuple[object, ...]:
        return accuracy.attack, accuracy.definition, accuracy.epsilon, accuracy.n, accuracy.data_sha256

    same = [other for other in version.manifest.checkpoint_accuracies if images(other) == images(found)]
    return same[-1] if same else None
