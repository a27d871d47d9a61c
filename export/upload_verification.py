"""The command python -m export.uploads: attacks that pass through encoding, decoding, cropping and resizing.

Nothing here imports torch.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, get_args

import tyro

from export.arguments import AccuracyArguments, check_at_least
from export.changing import open_version
from export.errors import VerificationError
from export.labelled_images import LabelledImages, load_as_served
from export.measuring import Asked, check_can_measure, measured, write_accuracies
from export.upload_attack import Format, Upload, UploadGraph
from export.verification import by_gradient
from fsr_serve.artifact import ATTACK_FILE, Accuracy, ModelVersion, Preprocessing
from fsr_serve.checks.probe import AttackGraph
from fsr_serve.errors import StartupError
from fsr_serve.session import Floats
from training.evaluation.protocol import (
    CLEAN_UPLOADS,
    EPSILON,
    GRADIENT_ATTACKS,
    Budget,
    GradientAttack,
    GradientAttackName,
    attacked_uploads,
    definition_of,
)
from training.source import DataError

LEAST_SIDE = 8


@dataclass(frozen=True)
class Arguments(AccuracyArguments):
    """Measure a model version on uploads of another size than the network's, attacked in the pixels of the uploads.

    The images of the data, decoded to the size of the uploads, are the uploads. Each is perturbed by at most epsilon,
    rounded to 8 bits, encoded as PNG or JPEG, and decoded, cropped and resized by the server's own code. Gradients pass
    through crop and resize, and through rounding and JPEG as if they did nothing (BPDA). Beside them stand the same
    attacks on the decoded pixels. Figures go into the manifest. Can be stopped and started again: what is done is kept.
    """

    upload_shape: tuple[int, int] = (96, 96)
    """Height and width of the uploads."""
    quality: int = 75
    """Of JPEG, 1 to 100."""
    attacks: tuple[GradientAttackName, ...] = ("pgd20",)
    epsilon: float = EPSILON
    """L-infinity bound, in [0, 1] pixels: a whole number of 255ths, as uploads have 8 bits."""
    seed: int = 0
    """Of random starts."""


def main(args: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(Arguments, prog="python -m export.uploads", args=args)
    try:
        for accuracy in verify(arguments):
            print(line(accuracy))
    except (StartupError, DataError, VerificationError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; the same command goes on from here")


def verify(arguments: Arguments) -> list[Accuracy]:
    """Attack the version through uploads and write the accuracies into its manifest, those without attack first.

    Raises VerificationError for a signed version, arguments out of range or a version without attack graph;
    ArtifactError and DeviceError for a version or runtime that cannot be used; DataError for the images.
    """
    epsilon = _checked(arguments)
    version = open_version(arguments.version)
    check_can_measure(version, arguments.attacks, "Export the version anew with its attack graph")
    session = arguments.open_session(version)
    height, width = arguments.upload_shape
    as_uploaded = version.manifest.model_copy(update={"preprocessing": Preprocessing(height=height, width=width)})
    pictures = load_as_served(arguments.data, arguments.split, as_uploaded, arguments.images)
    data_name = f"{arguments.measured_on}, uploads of {height}x{width} pixels"
    accuracies = []
    for view in Views(arguments, version, pictures, epsilon):
        asked = Asked(view.name, view.definition, view.epsilon, data_name, pictures.sha256, arguments.seed)
        accuracies.append(measured(asked, version, session, pictures.labels, view.show, arguments.state))
    write_accuracies(version, accuracies)
    return accuracies


def line(accuracy: Accuracy) -> str:
    """One row of the report."""
    interval = f"{accuracy.low:>10.2%} - {accuracy.high:.2%}"
    return f"{accuracy.attack:<22}{accuracy.accuracy:>8.2%}{interval}   {accuracy.definition}, n = {accuracy.n}"


class View(NamedTuple):
    """What the network is shown of a batch, under which name."""

    name: str
    definition: str
    epsilon: float
    show: Callable[[slice], Floats]


class Views:
    """Pictures without attack and under each, on the decoded pixels and in those of uploads of each format."""

    def __init__(self, arguments: Arguments, version: ModelVersion, pictures: LabelledImages, epsilon: float) -> None:
        self._arguments, self._pictures, self._epsilon = arguments, pictures, epsilon
        self._uploads = [
            Upload(arguments.upload_shape, kind, arguments.quality, version.manifest.preprocessing)
            for kind in get_args(Format)
        ]
        path, device, threads = version.path / ATTACK_FILE, arguments.device, arguments.threads
        self._graph = AttackGraph(path, device=device, threads=threads)
        self._graphs = [UploadGraph(path, upload, device=device, threads=threads) for upload in self._uploads]

    def __iter__(self) -> Iterator[View]:
        for name, upload in zip(CLEAN_UPLOADS, self._uploads, strict=True):
            yield View(name, f"as they are, {_path(upload)}", 0.0, partial(self._clean, upload))
        for attack in dict.fromkeys(self._arguments.attacks):
            definition = definition_of(attack, Budget())
            on_decoded, *names = attacked_uploads(attack)
            decoded = partial(self._decoded, GRADIENT_ATTACKS[attack])
            yield View(on_decoded, f"{definition}, on the decoded pixels", self._epsilon, decoded)
            for name, upload, graph in zip(names, self._uploads, self._graphs, strict=True):
                uploaded = partial(self._uploaded, GRADIENT_ATTACKS[attack], upload, graph)
                yield View(name, f"{definition}, {_path(upload)}", self._epsilon, uploaded)

    def _clean(self, upload: Upload, part: slice) -> Floats:
        return upload.seen(self._pictures.images[part])

    def _decoded(self, attack: GradientAttack, part: slice) -> Floats:
        images = self._clean(self._uploads[0], part)
        return self._attacked(attack, self._graph, images, part)

    def _uploaded(self, attack: GradientAttack, upload: Upload, graph: UploadGraph, part: slice) -> Floats:
        return upload.seen(self._attacked(attack, graph, self._pictures.images[part], part))

    def _attacked(self, attack: GradientAttack, graph: AttackGraph, images: Floats, part: slice) -> Floats:
        labels, seed = self._pictures.labels[part], self._arguments.seed
        return by_gradient(graph, attack, self._epsilon, seed, images, labels, part.start)


def _path(upload: Upload) -> str:
    height, width = upload.shape
    form = "PNG" if upload.format == "png" else f"JPEG of quality {upload.quality}"
    return f"through {height}x{width} {form}"


def _checked(arguments: Arguments) -> float:
    """Epsilon, exactly a number of 255ths. Raises VerificationError for what is out of range."""
    levels = round(255 * arguments.epsilon) if 0 < arguments.epsilon <= 1 else 0
    if levels < 1 or abs(255 * arguments.epsilon - levels) > 0.01:
        raise VerificationError(
            f"epsilon is {arguments.epsilon:g}, {255 * arguments.epsilon:g}/255; expected a whole number of 255ths "
            f"from 1/255 to 1, as uploads have 8 bits; such as {EPSILON:.6f} (8/255)"
        )
    if min(arguments.upload_shape) < LEAST_SIDE:
        raise VerificationError(
            f"upload_shape is {arguments.upload_shape}; expected a height and a width of {LEAST_SIDE} pixels or more"
        )
    if not 1 <= arguments.quality <= 100:
        raise VerificationError(f"quality is {arguments.quality}; expected 1 to 100")
    check_at_least(0, seed=arguments.seed)
    return levels / 255
