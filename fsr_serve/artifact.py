"""A model version: a folder whose manifest names every file with its SHA-256. This is the contract with `export`.

models/<name>/<version>/
    model.onnx       images float32 (n, 3, h, w) in [0, 1] -> logits float32 (n, classes)
    evidence.onnx    the same, and `features` and `evidence_of` each FSR module; run instead of model.onnx
    attack.onnx      images, labels int64 (n,), loss_weights float32 (2,) [cross-entropy, margin]
                     -> logits, loss (n,), gradient (n, 3, h, w) of the summed loss
    weights.data     the external data that the graphs share
    checks.npz       how clean images look to the checks, once `python -m export.checks` has measured it
    manifest.json    `Manifest`
    manifest.sha256  `sha256sum -c` checks the manifest with it
    model.sig        signature of the files above, where there is one (`fsr_serve.signature`)

Only model.onnx, the manifest and its digest are always there; the manifest says what is missing and why.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from fsr_serve.errors import ArtifactError
from fsr_serve.files import is_plain

MODEL_FILE = "model.onnx"
EVIDENCE_FILE = "evidence.onnx"
ATTACK_FILE = "attack.onnx"
WEIGHTS_FILE = "weights.data"
CHECKS_FILE = "checks.npz"
MANIFEST_FILE = "manifest.json"
DIGEST_FILE = "manifest.sha256"
SIGNATURE_FILE = "model.sig"

IMAGES = "images"
LABELS = "labels"
LOSS_WEIGHTS = "loss_weights"
LOGITS = "logits"
FEATURES = "features"
LOSS = "loss"
GRADIENT = "gradient"

VERSION_NAME = re.compile("[1-9][0-9]*")
"""Of a version's folder: one name for each number."""

MANIFEST_BYTES = 16 * 2**20
"""Thousands of times as many as a manifest has; it is read before anything vouches for it."""

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""Of a file in the version's own folder."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


JpegScale = Literal["full", "reduced"]


class Preprocessing(_Frozen):
    """How any picture becomes what the network takes: RGB in [0, 1], centre-cropped to the aspect ratio, resized."""

    height: int = Field(ge=1)
    width: int = Field(ge=1)
    resize: Literal["bilinear"] = "bilinear"
    jpeg_scale: JpegScale = "full"
    """reduced: a JPEG is decoded at 1/2, 1/4 or 1/8, the smallest with at least twice the longer side wanted here."""


class Tensors(_Frozen):
    """Names of a graph's inputs and outputs."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


Precision = Literal["fp32", "fp16", "int8"]
"""Of the weights and activations in model.onnx and evidence.onnx; attack.onnx computes in fp32."""


class Accuracy(_Frozen):
    """Share of `n` images that keep their label under an attack, with its 95 % interval."""

    attack: str
    """`clean`, or the attack's short name."""
    definition: str
    epsilon: float = Field(ge=0, le=1)
    """L-infinity bound in [0, 1] pixels; 0 for `clean`."""
    accuracy: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    n: int = Field(ge=1)
    data: str
    data_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of the images as the network takes them, and their labels."""
    seed: int
    """Of random starts and of Square's proposals."""
    runtime: str
    """What computed it: onnxruntime or OpenVINO for these files, torch for the checkpoint."""
    precision: str
    seconds: float = Field(ge=0)
    """Wall time of the measurement."""
    measured: str
    """Day it was finished, ISO 8601."""


class CheckFigure(_Frozen):
    """What a check says of images that it was not calibrated on."""

    check: str
    attack: str
    """`clean`, or the short name of the attack that made the images."""
    definition: str
    epsilon: float = Field(ge=0, le=1)
    false_alarm_rate: float = Field(gt=0, lt=1)
    """That the check was set to: p-values up to it count as suspicious."""
    suspicious: float = Field(ge=0, le=1)
    """Share of n: of clean images, of those that an attack has turned from right to wrong, of attacks by queries."""
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    n: int = Field(ge=1)
    auroc: float | None = Field(default=None, ge=0, le=1)
    """Of the attacked images against the clean ones; 0.5 is a coin."""
    accepted_and_wrong: float | None = Field(default=None, ge=0, le=1)
    """Share of all attacked images that are answered wrongly without having been suspicious."""
    attacked: int | None = Field(default=None, ge=1)
    queries: float | None = Field(default=None, ge=1)
    """Median number until an attack by queries was suspicious."""
    calibrated_on: int = Field(ge=1)
    data: str
    data_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    seed: int
    runtime: str
    measured: str
    """Day, ISO 8601."""


class Manifest(_Frozen):
    """What is known of a model version."""

    format: Literal[2] = 2
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    preprocessing: Preprocessing
    precision: Precision
    tensors: dict[FileName, Tensors]
    """Of each graph there is."""
    missing: dict[FileName, str]
    """Graphs there are not, and why; what needs them is off."""
    files: dict[FileName, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
    training: dict[str, JsonValue]
    """Method, data, recipe, seed and weights (best or last, and their SHA-256) it was trained with, as far as known."""
    accuracies: tuple[Accuracy, ...]
    """Measured on these very files."""
    checkpoint_accuracies: tuple[Accuracy, ...]
    """Measured in torch on the checkpoint that the files were made from."""
    checks: tuple[CheckFigure, ...] = ()
    """What the checks find and miss; empty until they are calibrated."""
    versions: dict[str, str]
    """Of the tools that made it, with opset, IR version and producer of the graphs."""
    signed_as: str | None = None
    """NAME/VERSION that the signature is for, where there is one: in another folder it is not what was signed."""

    @model_validator(mode="after")
    def _every_graph_is_listed(self) -> Self:
        for name in {MODEL_FILE, *self.tensors}:
            if name not in self.files or name not in self.tensors:
                raise ValueError(f"{name} must be in files and in tensors")
        return self


@dataclass(frozen=True)
class ModelVersion:
    """A verified model version. `sha256` is its manifest's, which covers every other file."""

    name: str
    version: int
    path: Path
    manifest: Manifest
    sha256: str

    @property
    def place(self) -> str:
        """Its folder's name in the folder of models: NAME/VERSION."""
        return f"{self.name}/{self.version}"

    @property
    def answers_sha256(self) -> str:
        """Of all that its answers depend on: the graphs and how they are used, no figures and no calibration."""
        parts = self.manifest.model_dump(mode="json", include={"classes", "preprocessing", "tensors", "files"})
        parts["files"].pop(CHECKS_FILE, None)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def evidence_of(index: int) -> tuple[str, ...]:
    """Outputs of evidence.onnx for FSR module number `index`, counted from 0 in the order of the network.

    Logits of the auxiliary head on f+, f- and recalibrated f- (n, classes), the share of the features' magnitude
    that the mask calls non-robust (n,), and class-evidence maps of the three and of f~ (n, classes, h', w').
    """
    names = ("robust_logits", "nonrobust_logits", "recalibrated_logits", "mask_mass")
    maps = ("robust_map", "nonrobust_map", "recalibrated_map", "output_map")
    return tuple(f"{name}_{index}" for name in (*names, *maps))


def find_model(models: Path, name: str | None) -> Path:
    """The folder of model `name`, or of the only model there is when name is None. It holds a version at least."""
    if not models.is_dir():
        raise ArtifactError(
            f"FSR_MODELS is {str(models)!r}; expected a folder of models. "
            "Make one with: python -m export runs/x models/x/1"
        )
    names = sorted(folder.name for folder in models.iterdir() if versions_of(folder))
    if name is None and len(names) == 1:
        (name,) = names
    if name not in names:
        fix = "name one with FSR_MODEL" if name is None else "expected one of these"
        raise ArtifactError(f"FSR_MODEL is {name!r}; {models} holds {', '.join(names) or 'no model'}: {fix}")
    return models / name


def versions_of(model: Path) -> dict[int, Path]:
    """The folders named 1, 2, 3, ... in a model's folder, in rising order; hidden folders hold no models."""
    if model.name.startswith(".") or not model.is_dir():
        return {}
    folders = [folder for folder in model.iterdir() if VERSION_NAME.fullmatch(folder.name) and folder.is_dir()]
    return {int(folder.name): folder for folder in sorted(folders, key=lambda folder: int(folder.name))}


def read_version(path: Path) -> ModelVersion:
    """Read and verify a model version. Raises ArtifactError naming the first file that is missing, extra or altered."""
    model, number = os.path.split(os.path.abspath(path))  # of ".", too, and not where a link leads
    if not VERSION_NAME.fullmatch(number):
        raise ArtifactError(
            f"{path} is named {number!r}; expected MODELS/NAME/VERSION with a whole number as VERSION, without zeros "
            "before it"
        )
    manifest_bytes = _read(path / MANIFEST_FILE)
    digest = hashlib.sha256(manifest_bytes).hexdigest()
    if _read(path / DIGEST_FILE) != digest_line(digest):
        raise ArtifactError(
            f"{path / MANIFEST_FILE} has SHA-256 {digest}, which {path / DIGEST_FILE} does not say; one of them "
            "was altered. Restore the version from where it came; where a command that changes it was interrupted, "
            "run that again"
        )
    try:
        manifest = Manifest.model_validate_json(manifest_bytes)
    except ValidationError as error:
        raise ArtifactError(f"{path / MANIFEST_FILE} is not a manifest of format 2: {error}") from error
    for file in sorted(path.iterdir()):
        if file.name not in {*manifest.files, MANIFEST_FILE, DIGEST_FILE, SIGNATURE_FILE}:
            raise ArtifactError(f"{file} is not in the manifest; expected only files that it lists. Remove it")
        if not is_plain(file):
            raise _not_plain(file)
    for name, expected in manifest.files.items():
        found = file_sha256(path / name)
        if found != expected:
            raise ArtifactError(
                f"{path / name} has SHA-256 {found}; the manifest says {expected}: the file was altered. "
                "Restore the version from where it came"
            )
    return ModelVersion(Path(model).name, int(number), path, manifest, digest)


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file. Raises ArtifactError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def digest_line(digest: str) -> bytes:
    """The content of manifest.sha256 for a manifest with this digest."""
    return f"{digest}  {MANIFEST_FILE}\n".encode()


def _read(path: Path) -> bytes:
    """Of the manifest and its digest, whose writer nothing is known of yet."""
    try:
        size = path.lstat().st_size
        if not is_plain(path):
            raise _not_plain(path)
        if size > MANIFEST_BYTES:
            raise ArtifactError(f"{path} has {size} bytes; expected at most {MANIFEST_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _not_plain(path: Path) -> ArtifactError:
    return ArtifactError(f"{path} is no plain file; expected the file itself, not a link, a folder or a device")


def _unreadable(path: Path, error: OSError) -> ArtifactError:
    return ArtifactError(f"{path} cannot be read ({error.strerror}); a model version is not whole without it")
