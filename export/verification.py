"""The command python -m export.verify: attack the very files that will be deployed, in their runtime.

Nothing here imports torch.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import tyro

from export.arguments import AccuracyArguments, check_at_least, check_epsilon
from export.changing import open_version
from export.errors import VerificationError
from export.labelled_images import LabelledImages, load_as_served
from export.measuring import Asked, check_can_measure, measured, write_accuracies
from fsr_serve.artifact import ATTACK_FILE, Accuracy, ModelVersion
from fsr_serve.checks.probe import CROSS_ENTROPY, MARGIN, AttackGraph, Labels, pgd
from fsr_serve.errors import StartupError
from fsr_serve.ranking import lead
from fsr_serve.session import Floats, Session
from training.evaluation.protocol import (
    EPSILON,
    GRADIENT_ATTACKS,
    AttackName,
    Budget,
    GradientAttack,
    ImageStreams,
    RandomStarts,
    definition_of,
)
from training.evaluation.statistics import ROUNDING
from training.source import DataError
from training.square import search_by_squares

ALLOWED_LOSS = 0.02
"""How far an accuracy of the file may lie under the checkpoint's."""
LOSS_WEIGHTS = {"cross_entropy": CROSS_ENTROPY, "margin": MARGIN}


@dataclass(frozen=True)
class Arguments(AccuracyArguments):
    """Measure clean and robust accuracy of a model version as it will be served, and write it into its manifest.

    Gradients come from the version's attack graph, answers from model.onnx in the runtime asked for. Fails when an
    accuracy lies more than 2 points under the checkpoint's, where that was measured on the same images. Can be
    stopped and started again: what is done is kept.
    """

    attacks: tuple[AttackName, ...] = ("fgsm", "pgd20", "pgd100", "cw", "square")
    """Attacks to run, besides clean images."""
    queries: int = 1000
    """Of Square, per image."""
    epsilon: float = EPSILON
    """L-infinity bound, in [0, 1] pixels."""
    seed: int = 0
    """Of random starts and of Square's squares: the same as in python -m training.evaluation."""


class Verdict(NamedTuple):
    """A measured accuracy, and the checkpoint's on the same images where there is one."""

    found: Accuracy
    checkpoint: Accuracy | None

    @property
    def is_too_low(self) -> bool:
        return self.checkpoint is not None and self.found.accuracy < self.checkpoint.accuracy - ALLOWED_LOSS - ROUNDING


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

    Raises VerificationError for a signed version, arguments out of range, or attacks that need the attack graph it
    has not; ArtifactError and DeviceError for a version or runtime that cannot be used; DataError for the images.
    """
    check_epsilon(arguments.epsilon)
    check_at_least(1, queries=arguments.queries)
    check_at_least(0, seed=arguments.seed)
    version = open_version(arguments.version)
    needs_gradients = [name for name in arguments.attacks if name != "square"]
    check_can_measure(version, needs_gradients, "Choose --attacks square")
    session = arguments.open_session(version)
    data = load_as_served(arguments.data, arguments.split, version.manifest, arguments.images)
    attacks: list[AttackName | Literal["clean"]] = ["clean", *dict.fromkeys(arguments.attacks)]
    accuracies = [_measure(attack, version, session, data, arguments) for attack in attacks]
    write_accuracies(version, accuracies)
    return [Verdict(found, _of_checkpoint(version, found)) for found in accuracies]


def line(verdict: Verdict) -> str:
    """One row of the report."""
    found, checkpoint = verdict
    interval = f"{found.low:>10.2%} - {found.high:.2%}"
    text = f"{found.attack:<8}{found.accuracy:>8.2%}{interval}   {found.definition}, n = {found.n}"
    if checkpoint is None:
        return f"{text}; the checkpoint was not measured on these images"
    return f"{text}; checkpoint {checkpoint.accuracy:.2%}{' TOO LOW' if verdict.is_too_low else ''}"


def _measure(
    attack: AttackName | Literal["clean"],
    version: ModelVersion,
    session: Session,
    data: LabelledImages,
    arguments: Arguments,
) -> Accuracy:
    asked = Asked(
        attack=attack,
        definition="images as they are"
        if attack == "clean"
        else definition_of(attack, Budget(queries=arguments.queries)),
        epsilon=0.0 if attack == "clean" else arguments.epsilon,
        data=arguments.measured_on,
        data_sha256=data.sha256,
        seed=arguments.seed,
    )
    adversarial = _attack(attack, version, session, arguments)

    def show(part: slice) -> Floats:
        return adversarial(data.images[part], data.labels[part], part.start)

    return measured(asked, version, session, data.labels, show, arguments.state)


def _attack(
    attack: AttackName | Literal["clean"], version: ModelVersion, session: Session, arguments: Arguments
) -> Callable[[Floats, Labels, int], Floats]:
    """The attack, on a batch and the number of its first image."""
    if attack == "clean":
        return lambda images, labels, first: images
    if attack == "square":
        return partial(_by_queries, session, arguments)
    graph = AttackGraph(version.path / ATTACK_FILE, device=arguments.device, threads=arguments.threads)
    return partial(by_gradient, graph, GRADIENT_ATTACKS[attack], arguments.epsilon, arguments.seed)


def _by_queries(session: Session, arguments: Arguments, images: Floats, labels: Labels, first: int) -> Floats:
    return search_by_squares(
        lambda shown, theirs: lead(session.logits(shown), theirs),
        images,
        labels,
        epsilon=arguments.epsilon,
        queries=arguments.queries,
        random=ImageStreams(arguments.seed, first=first).next(len(images)),
    )


def by_gradient(
    graph: AttackGraph,
    attack: GradientAttack,
    epsilon: float,
    seed: int,
    images: Floats,
    labels: Labels,
    first: int,
) -> Floats:
    """The protocol's attack on images (n, 3, h, w), from the random starts of number `first` on."""
    starts = RandomStarts(seed, image_values=int(np.prod(images.shape[1:])), first=first)
    return pgd(
        graph,
        images,
        labels,
        epsilon=epsilon,
        step_size=epsilon / attack.divisor,
        steps=attack.steps,
        start=starts.next(images.shape, epsilon) if attack.random_start else None,
        loss_weights=LOSS_WEIGHTS[attack.loss],
    )


def _of_checkpoint(version: ModelVersion, found: Accuracy) -> Accuracy | None:
    def asked(accuracy: Accuracy) -> tuple[object, ...]:
        names = ("attack", "definition", "epsilon", "n", "data_sha256", "seed")
        return tuple(getattr(accuracy, name) for name in names)

    same = [other for other in version.manifest.checkpoint_accuracies if asked(other) == asked(found)]
    return same[-1] if same else None
