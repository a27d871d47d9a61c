"""Accuracies of deployed files, image by image, kept in the manifest. No torch."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib import metadata
from pathlib import Path

import onnxruntime
from tqdm import tqdm

from export.changing import being_changed, write_manifest
from export.errors import VerificationError
from fsr_serve.artifact import (
    ATTACK_FILE,
    CHECKS_FILE,
    SIGNATURE_FILE,
    Accuracy,
    ModelVersion,
)
from fsr_serve.checks.probe import Labels
from fsr_serve.session import Floats, Session
from training.evaluation.flags import FlagsFile
from training.evaluation.statistics import wilson

BATCH = 100


@dataclass(frozen=True)
class Asked:
    """What is measured, in the words of `Accuracy`."""

    attack: str
    definition: str
    epsilon: float
    data: str
    data_sha256: str
    seed: int


def measured(
    asked: Asked,
    version: ModelVersion,
    session: Session,
    labels: Labels,
    show: Callable[[slice], Floats],
    state: Path | None,
) -> Accuracy:
    """Share of the labels (n,) that the session gives to what `show` makes of the images of a batch.

    Goes on with what is known in the folder `state`, by default .verify beside the version. What was finished before
    stays as it is.
    """
    runtime = runtime_of(session)
    engine = f"{session.runtime} {_version_of(session)}-{session.device}-{session.precision}"
    seen = version.manifest.preprocessing.model_dump()
    graphs = {name: digest for name, digest in version.manifest.files.items() if name != CHECKS_FILE}
    depends = json.dumps([asdict(asked), graphs, seen, engine], sort_keys=True)
    name = f"{asked.attack}-{hashlib.sha256(depends.encode()).hexdigest()[:12]}.npz"
    flags = FlagsFile((state or version.path.parent / ".verify") / name, len(labels))
    known = int(flags.is_known.sum())
    precision = version.manifest.precision if session.precision == "f32" else session.precision
    if known == len(labels) and (finished := _finished(asked, flags, runtime, precision, version)):
        return finished
    with tqdm(total=len(labels), initial=known, desc=asked.attack, unit="img", leave=False) as bar:
        for part in list(flags.unknown(BATCH)):
            started = time.perf_counter()
            answers = session.logits(show(part)).argmax(axis=1)
            flags.write(part, answers == labels[part], time.perf_counter() - started)
            bar.update(len(answers))
    return Accuracy(
        **asdict(asked),
        **wilson(int(flags.correct.sum()), len(labels))._asdict(),
        n=len(labels),
        runtime=runtime,
        precision=precision,
        seconds=round(flags.seconds, 1),
        measured=date.today().isoformat(),
    )


def runtime_of(session: Session) -> str:
    """In the words of the manifest, which on a GPU end in "CUDA": there the same file answers otherwise."""
    name = f"{session.runtime} {_version_of(session)}"
    return f"{name}, CUDA" if session.device == "cuda" else name


def _version_of(session: Session) -> str:
    # onnxruntime is installed by one of several packages
    return onnxruntime.__version__ if session.runtime == "onnxruntime" else metadata.version(session.runtime)


def _finished(asked: Asked, flags: FlagsFile, runtime: str, precision: str, version: ModelVersion) -> Accuracy | None:
    """What the manifest holds of these very flags, with the day of then."""
    told = asdict(asked) | wilson(int(flags.correct.sum()), len(flags.correct))._asdict()
    told |= {"n": len(flags.correct), "runtime": runtime, "precision": precision, "seconds": round(flags.seconds, 1)}
    for accuracy in version.manifest.accuracies:
        if told.items() <= accuracy.model_dump().items():
            return accuracy
    return None


def check_can_measure(version: ModelVersion, gradient_attacks: Sequence[str], otherwise: str) -> None:
    """Raises VerificationError for a signed version, and for attacks along gradients without the attack graph.

    `otherwise` is what to do then.
    """
    check_is_unsigned(version.path)
    if gradient_attacks and ATTACK_FILE not in version.manifest.tensors:
        reason = version.manifest.missing.get(ATTACK_FILE, "not made")
        raise VerificationError(
            f"{version.path} has no attack graph ({reason}), which {', '.join(gradient_attacks)} need. {otherwise}"
        )


def check_is_unsigned(version: Path) -> None:
    """Raises VerificationError for a signed version."""
    if (version / SIGNATURE_FILE).exists():
        raise VerificationError(
            f"{version} is signed, and figures in its manifest would break the signature. Verify before signing, "
            f"or remove {SIGNATURE_FILE} and sign again"
        )


def check_is_as_measured(present: ModelVersion, measured: ModelVersion) -> None:
    """Raises VerificationError for a version that was signed since, or whose graphs are others by now."""
    check_is_unsigned(present.path)
    if present.answers_sha256 != measured.answers_sha256:
        raise VerificationError(
            f"{present.path} was replaced while it was measured; nothing was written, as the figures are of what was "
            "there before. Measure it again"
        )


def write_accuracies(version: ModelVersion, accuracies: Sequence[Accuracy]) -> None:
    """Add them to the manifest, each in the place of an earlier one of the same.

    Raises VerificationError where the version was signed or replaced since.
    """

    def measures(accuracy: Accuracy) -> tuple[object, ...]:
        return tuple(
            getattr(accuracy, name)
            for name in ("attack", "definition", "epsilon", "n", "data_sha256", "seed", "runtime", "precision")
        )

    new = {measures(accuracy) for accuracy in accuracies}
    with being_changed(version.path) as present:  # others may have measured it meanwhile
        check_is_as_measured(present, version)
        manifest = present.manifest
        kept = [accuracy for accuracy in manifest.accuracies if measures(accuracy) not in new]
        write_manifest(version.path, manifest.model_copy(update={"accuracies": (*kept, *accuracies)}))
